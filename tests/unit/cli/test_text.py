"""Sizes and columns for people."""

from __future__ import annotations

import pytest

from otel_celery_memory.cli.common import Column, clipped, count, printable, size, table


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (-512, "-512 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (528_691, "516.3 KiB"),
        (-3 * 2**30, "-3.0 GiB"),
        (2**50, "1,024.0 TiB"),
    ],
)
def test_bytes_are_shown_in_the_largest_unit_that_fits(size_bytes: int | None, text: str) -> None:
    assert size(size_bytes) == text


def test_a_change_has_its_sign_and_none_has_none() -> None:
    assert [size(each, signed=True) for each in (1, 0, -1)] == ["+1 B", "0 B", "-1 B"]
    assert [count(each, signed=True) for each in (1_000, 0, -1)] == ["+1,000", "0", "-1"]


def test_characters_that_are_not_shown_are_replaced() -> None:
    assert printable("a\x1b[0m\tä\u202e\udcff \x7f\x9b") == "a?[0m?ä?? ??"


def test_the_end_of_a_long_text_is_kept() -> None:
    assert clipped("abcdefgh", 8) == "abcdefgh"
    assert clipped("abcdefghi", 8) == "..defghi"


def test_an_empty_column_of_text_is_left_out_except_for_the_last() -> None:
    columns = [Column("n", ["1"]), Column("task", [""], number=False), Column("p", [""], False)]
    assert list(table(columns)) == ["n  p", "1"]
