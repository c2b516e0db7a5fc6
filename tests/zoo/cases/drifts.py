"""Growth within the noise: one small entry in a hundred runs."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_seen: set[int] = set()
CASES = (Case("a slow drift", None, {"visit": 40}, fills=("visit",)),)


@app.task
def visit(number: int) -> int:
    """Notes one number in a hundred."""
    if number % 100 == 0:
        _seen.add(number)
    return len([str(step) for step in range(number % 50)])
