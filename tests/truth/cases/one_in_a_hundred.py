"""One run in a hundred leaks, with one value of its argument."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_refunds: list[str] = []
CASES = (Case("one run in a hundred", "settle", {"settle": 60}, seconds=240, holder=("_refunds",)),)


@app.task
def settle(number: int) -> int:
    """Keeps 100 KB of each hundredth."""
    if number % 100 == 7:
        _refunds.append(str(number).rjust(100_000))  # the line
    return number
