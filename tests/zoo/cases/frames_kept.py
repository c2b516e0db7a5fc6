"""Tables of pandas are kept in a module."""

from __future__ import annotations

from typing import Any

from tests.truth.app import app
from tests.truth.case import Case

_tables: list[Any] = []
CASES = (
    Case("data frames kept", "aggregate", {"aggregate": 3}, holder=("_tables",), needs=("pandas",)),
)


@app.task
def aggregate(number: int) -> float:
    """Keeps 256 KiB."""
    import numpy
    import pandas

    _tables.append(pandas.DataFrame(numpy.full((4_096, 8), float(number))))  # the line
    return float(_tables[-1][0].sum())
