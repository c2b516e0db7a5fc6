"""Sizes and columns for people."""

from __future__ import annotations

import pytest

from otel_celery_memory.cli.common import Column, clipped, count, fitted, printable, size, table


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


PLACE = "app/reports/monthly/builder.py:1041 in build_report"


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (100, PLACE),
        (40, "..onthly/builder.py:1041 in build_report"),
        (33, "builder.py:1041 in build_report"),
        (25, "builder.py:1041 in buil.."),
        (18, "builder.py:1041"),
        (5, "builder.py:1041"),
    ],
)
def test_of_a_long_place_directories_go_first_and_never_the_file_s_name_and_the_line(
    width: int, text: str
) -> None:
    assert fitted(PLACE, width) == text


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (
            "200",
            ["    size  task               place", f"10.0 MiB  shop.build_report  {PLACE}"],
        ),
        (
            "60",
            [
                "    size  task              place",
                "10.0 MiB  ..p.build_report  builder.py:1041 in build_report",
            ],
        ),
        (
            "40",
            [
                "    size  task       place",
                "10.0 MiB  .._report  builder.py:1041",
            ],
        ),
    ],
)
def test_a_table_is_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: str, lines: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = list(
        table(
            [
                Column("size", ["10.0 MiB"]),
                Column("task", ["shop.build_report"], number=False),
                Column("place", [PLACE], number=False),
            ]
        )
    )
    assert shown == lines


def test_where_a_terminal_is_too_narrow_texts_have_lines_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    numbers = [Column(head, ["516.3 KiB"]) for head in ("change", "before", "after")]
    texts = [Column("task", ["shop.build_report"], False), Column("place", [PLACE], False)]
    assert list(table([*numbers, *texts], [["lib/contextlib.py:105"]])) == [
        "   change     before      after",
        "  task",
        "  place",
        "516.3 KiB  516.3 KiB  516.3 KiB",
        "  shop.build_report",
        "  ..thly/builder.py:1041 in build_report",
        "    lib/contextlib.py:105",
    ]
