"""Only runs that fail leak."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_failed: dict[int, str] = {}
CASES = (
    Case(
        "only runs that fail",
        "charge",
        {"charge": 20},
        holder=("_failed",),
        condition="in runs that fail",
    ),
)


@app.task
def charge(number: int) -> None:
    """Raises in each seventh run, after it has kept something."""
    if number % 7 == 3:
        _failed[number] = str(number).rjust(8_000)  # the line
        raise ValueError(number)
