"""The README says what the code says."""

from __future__ import annotations

import pytest

from docs.tables import README, tables, updated


def test_the_tables_of_the_readme_are_those_of_conventions_and_settings() -> None:
    text = README.read_text()
    assert updated(text) == text


def test_a_readme_without_one_of_the_tables_is_refused() -> None:
    text = README.read_text()
    for name in tables():
        with pytest.raises(KeyError, match=name):
            updated(text.replace(f"<!-- {name} -->", ""))
