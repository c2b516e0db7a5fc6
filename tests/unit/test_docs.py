"""The documentation says what the code says."""

from __future__ import annotations

import re

import pytest

from docs.tables import README, tables, updated
from tests.unit.captures.documents import DOCUMENT


def test_the_tables_of_the_readme_are_those_of_conventions_and_settings() -> None:
    text = README.read_text()
    assert updated(text) == text


def test_a_readme_without_one_of_the_tables_is_refused() -> None:
    text = README.read_text()
    for name in tables():
        with pytest.raises(KeyError, match=name):
            updated(text.replace(f"<!-- {name} -->", ""))


def test_the_format_of_captures_is_documented_key_by_key() -> None:
    text = (README.parent / "docs" / "capture-format.md").read_text(encoding="utf-8")
    of_captures, of_sites = text.split("A site:")
    for part, document in ((of_captures, DOCUMENT), (of_sites, DOCUMENT["sites"][0])):
        rows = re.findall(r"^\| (`.*?`) \| [a-z]", part, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(document)
