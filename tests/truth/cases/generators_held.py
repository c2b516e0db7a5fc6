"""Generators that were begun and never ended hold what their frames hold."""

from __future__ import annotations

from collections.abc import Iterator

from tests.truth.app import app
from tests.truth.case import Case

_cursors: list[Iterator[str]] = []
CASES = (Case("generators suspended", "page", {"page": 12}, holder=("_cursors",)),)


def _rows(number: int) -> Iterator[str]:
    rows = [f"{number}/{row}".rjust(100) for row in range(30)]  # the line
    yield from rows


@app.task
def page(number: int) -> str:
    """Reads the first row, and keeps the cursor."""
    _cursors.append(_rows(number))
    return next(_cursors[-1])
