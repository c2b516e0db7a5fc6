"""The page has nothing of a worker's words as markup, and a saved one needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

from otel_celery_memory.view.page import POLICY, SCRIPTS, STYLES, asset, live_page, saved_page
from tests.unit.view.examples import leak, runs, shown, store_with

HOSTILE = "</script><script>alert(1)</script><!--<script><img src=x onerror=alert(1)>&amp;\u2028"


class Parts(HTMLParser):
    """The scripts and styles of a page, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = (tag, dict(attrs)) if tag in ("script", "style") else None

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside.append((*self._open, data))

    def handle_endtag(self, tag: str) -> None:
        self._open = None


def saved() -> tuple[str, dict[str, object]]:
    snapshot = shown(store_with(runs(HOSTILE, 3), events=(leak(TASK_NAME=HOSTILE),)))
    return saved_page(snapshot), snapshot


def test_the_data_of_a_saved_page_is_what_went_in_and_ends_no_tag() -> None:
    page, snapshot = saved()
    scripts = [each for each in Parts(page).inside if each[0] == "script"]
    data = [text for _, of, text in scripts if of.get("type") == "application/json"]
    assert len(scripts) == len(SCRIPTS) + 1
    assert [json.loads(each) for each in data] == [snapshot]
    assert "alert(1)" not in page.replace(data[0], "")


def test_the_policy_of_a_saved_page_lets_its_own_scripts_run_and_nothing_be_fetched() -> None:
    parts = Parts(saved()[0])
    (policy,) = [of["content"] or "" for tag, of in parts.tags if "http-equiv" in of]
    for kind, directive in (("script", "script-src"), ("style", "style-src")):
        texts = [text for tag, of, text in parts.inside if tag == kind and "type" not in of]
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in texts
        ]
        assert f"{directive} {' '.join(hashes)};" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    assert [of for _, of in parts.tags if "src" in of] == []
    assert [of["href"] for _, of in parts.tags if "href" in of] == ["data:,", "#main"]


def test_no_page_has_a_handler_or_a_style_in_an_attribute() -> None:
    for page in (live_page(), saved()[0]):
        of_all = [name for _, of in Parts(page).tags for name in of]
        assert [name for name in of_all if name.startswith("on") or name == "style"] == []


def test_the_live_page_names_its_assets_and_has_no_script_inside() -> None:
    parts = Parts(live_page())
    assert [of["src"] for tag, of in parts.tags if tag == "script"] == [
        f"/assets/{name}" for name in SCRIPTS
    ]
    assert parts.inside == []
    assert "unsafe" not in POLICY


def test_no_other_file_is_an_asset() -> None:
    assert all(asset(name) for name in SCRIPTS + STYLES)
    for name in ("", "page.html", "../page.py", "vendor/../view.js", "vendor/uPlot.LICENSE"):
        assert asset(name) is None


def test_no_script_of_ours_makes_markup_of_a_text() -> None:
    for name in ("format.js", "parts.js", "captures.js", "view.js"):
        text = (asset(name) or ("", ""))[0]
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
        )
        assert found == []
