"""The documentation says what the code says."""

from __future__ import annotations

import re

import pytest

from docs.tables import ROOT, SITE, pages, tables, updated
from otel_celery_memory.ipc.commands import CAPTURE_RUNS_MAX, CAPTURE_SECONDS_MAX
from otel_celery_memory.ipc.status_page import STATUS_BYTES
from otel_celery_memory.worker.remote_control.validation import COMMANDS_AT_ONCE, COMMANDS_PER_S
from tests.unit.captures.documents import DOCUMENT


def test_the_tables_of_the_pages_are_those_of_the_code() -> None:
    texts = pages()
    assert updated(texts) == texts


@pytest.mark.parametrize("name", tables())
def test_pages_without_one_of_the_tables_are_refused(name: str) -> None:
    texts = {path: text.replace(f"<!-- {name} -->", "") for path, text in pages().items()}
    with pytest.raises(KeyError, match=name):
        updated(texts)


def test_a_table_that_is_in_two_pages_is_refused() -> None:
    texts = pages()
    twice = "<!-- settings -->\n<!-- end -->\n"
    with pytest.raises(KeyError, match="given twice"):
        updated({**texts, SITE / "index.md": twice})


def test_the_format_of_captures_is_documented_key_by_key() -> None:
    text = (SITE / "reference" / "capture-format.md").read_text(encoding="utf-8")
    of_captures, of_sites = text.split("A site:")
    for part, document in ((of_captures, DOCUMENT), (of_sites, DOCUMENT["sites"][0])):
        rows = re.findall(r"^\| (`.*?`) \| [a-z]", part, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(document)


def test_every_file_that_the_page_on_security_names_is_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = {
        name
        for line in text.splitlines()
        if line.startswith("|")
        for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", line.rpartition(" | ")[2])
    }
    assert len(named) > 10
    package = ROOT / "otel_celery_memory"
    assert {name for name in named if not (package / name).exists()} == set()


def test_the_page_on_security_has_the_bounds_of_remote_control() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert f"{COMMANDS_AT_ONCE} at once and then {COMMANDS_PER_S:g} a second" in text
    assert f"{CAPTURE_RUNS_MAX:,} runs or {CAPTURE_SECONDS_MAX:g} s at most" in text
    assert f"a page of {STATUS_BYTES >> 10} KiB" in text
