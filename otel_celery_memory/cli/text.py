"""Text for people: sizes, columns, and what came from a file without what steers a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

WIDTH = 100
"""Columns that output fits in."""


def size(size_bytes: float | None, *, signed: bool = False) -> str:
    """Bytes for people: ``516.3 KiB``, or ``+516.3 KiB``; ``-`` for what is not known."""
    if size_bytes is None:
        return "-"
    sign = "+" if signed and size_bytes > 0 else ""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        # 1,023.95 KiB would be shown as 1024.0 KiB.
        if abs(size_bytes) >= factor * 0.99995:
            return f"{sign}{size_bytes / factor:,.1f} {unit}"
    return f"{sign}{size_bytes:.0f} B"


def count(number: float, *, signed: bool = False) -> str:
    """A number for people: ``18,072``."""
    return f"{number:{'+' if signed and number else ''},.0f}"


def printable(text: str) -> str:
    """A text from a file without control characters and what turns the direction of writing."""
    return "".join(character if character.isprintable() else "?" for character in text)


def clipped(text: str, width: int) -> str:
    """The end of a text that is too long: of a path that is what tells it from others."""
    return text if len(text) <= width else ".." + text[len(text) - width + 2 :]


class Column(NamedTuple):
    """A column of a table: its head, a cell for each row, and whether these are numbers."""

    head: str
    cells: Sequence[str]
    number: bool = True


def table(columns: Sequence[Column], below: Sequence[Sequence[str]] = ()) -> Iterator[str]:
    """Lines of a table with its columns of numbers first; `below` are lines to go under each row.

    Texts are made printable, and those that are too long lose their beginnings.
    """
    lines = [
        [column.head, *(printable(cell) for cell in column.cells)] for column in _used(columns)
    ]
    widths = [max(map(len, line)) for line in lines]
    numbers = sum(column.number for column in columns)
    gaps = 2 * (len(lines) - 1)
    texts = range(numbers, len(lines))
    for n in texts[:-1]:
        # The last text takes what is left: no other may take more than its share.
        widths[n] = min(widths[n], (WIDTH - sum(widths[:numbers]) - gaps) // (len(texts) + 1))
    widths[-1] = WIDTH - sum(widths[:-1]) - gaps
    for row, cells in enumerate(zip(*lines, strict=True)):
        yield "  ".join(
            cell.rjust(width) if n < numbers else clipped(cell, width).ljust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for line in below[row - 1] if row and below else ():
            yield "    " + clipped(printable(line), WIDTH - 4)


def _used(columns: Sequence[Column]) -> Iterator[Column]:
    """All columns but those of texts that say nothing."""
    return (
        column for column in columns if column.number or any(column.cells) or column is columns[-1]
    )
