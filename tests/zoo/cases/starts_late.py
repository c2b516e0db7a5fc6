"""A leak that starts when the worker has run for a while."""

from __future__ import annotations

import itertools

from tests.truth.app import app
from tests.truth.case import Case

_after: list[str] = []
_HEALTHY_RUNS = 1_000
_runs = itertools.count()
CASES = (Case("a leak that starts late", "sync", {"sync": 20}, seconds=300, holder=("_after",)),)


@app.task
def sync(number: int) -> int:
    """Is healthy for its first thousand runs in a process, then keeps 16 KB of each."""
    if next(_runs) >= _HEALTHY_RUNS:
        _after.append(str(number).rjust(16_000))  # the line
    return number
