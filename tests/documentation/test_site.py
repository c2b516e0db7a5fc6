"""The site and the README: what each promises, beside its blocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from docs.hooks import site_text
from tests.documentation.blocks import PAGES, ROOT, SITE, blocks_of

README = (ROOT / "README.md").read_text(encoding="utf-8")
IMAGES = SITE / "images"
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
ADDRESS = "https://code.example/shop/blob/main"


class MissingError(Exception):
    """A link leads nowhere."""


def fail(target: str) -> None:
    raise MissingError(target)


def shown(text: str, page: str = "docs/site/runbooks/index.md") -> str:
    return site_text(text, page, ADDRESS, fail)


def test_the_readme_is_a_screen_and_a_half_with_the_two_commands_to_begin_with() -> None:
    assert len(README.splitlines()) <= 150
    for command in ("make demo", "make test", "pip install ."):
        assert f"\n{command} " in README


@pytest.mark.parametrize("file", [ROOT / "README.md", *PAGES], ids=lambda file: file.name)
def test_every_link_of_a_page_leads_to_a_file_of_the_repository(file: Path) -> None:
    targets = LINK.findall(file.read_text(encoding="utf-8"))
    there = [each for each in targets if "://" not in each]
    assert [each for each in there if not (file.parent / each).exists()] == []


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in IMAGES.glob("*.*")}
    assert "view.png" in sizes
    assert {name: size for name, size in sizes.items() if size >= 150_000} == {}


def test_a_link_out_of_the_site_leads_to_the_project() -> None:
    assert shown("[a](../../../deploy/loki.yaml#x)") == f"[a]({ADDRESS}/deploy/loki.yaml#x)"


def test_a_link_to_a_file_that_a_page_shows_leads_to_the_page() -> None:
    assert shown("[a](../../../SECURITY.md#threats)") == "[a](../security.md#threats)"


def test_links_of_a_file_that_is_shown_are_led_from_where_it_stands() -> None:
    text = shown("<!-- file: ../../CHANGELOG.md -->\n\nNot shown.", "docs/site/changelog.md")
    assert text.startswith("# Changelog\n")
    assert "](reference/capture-format.md)" in text
    assert "Not shown." not in text


def test_links_inside_of_the_site_and_on_the_web_stay_as_they_are() -> None:
    for text in ("[a](CeleryTaskLeaks.md#what-to-do)", "[a](https://a.example/b)", "[a](#here)"):
        assert shown(text) == text


def test_code_is_not_changed() -> None:
    text = "```sh\necho '[a](../../../LICENSE)'\n```"
    assert shown(text) == text


@pytest.mark.parametrize("text", ["[a](../../../nowhere.md)", "<!-- file: ../nowhere.md -->"])
def test_a_link_that_leads_nowhere_is_told(text: str) -> None:
    with pytest.raises(MissingError):
        shown(text)


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": ([\w/-]+\.md)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(SITE)) for page in PAGES)


def test_the_tutorial_shows_the_code_of_the_sample() -> None:
    code = (ROOT / "examples/find_a_leak/shop/feeds.py").read_text(encoding="utf-8")
    (shown,) = (b.text for b in blocks_of(SITE / "find-a-leak.md") if b.language == "python")
    assert code.endswith(shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_belongs_to_a_point_of_a_list_is_indented_by_four(page: Path) -> None:
    """With three, which the repository's own view allows, the list ends on the site."""
    text = re.sub(
        r"^( *)```.*?^\1```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert re.findall(r"^   \S.*", text, re.MULTILINE) == []


def test_nothing_of_the_site_asks_others() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False
    # The theme asks GitHub's API for the stars of a repository that it shows.
    assert "repo_url" not in settings
    assert "analytics" not in settings["extra"]
    assert settings["plugins"] == ["search"]
