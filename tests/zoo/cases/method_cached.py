"""A cache without a bound on a method holds the object of each call."""

from __future__ import annotations

import functools

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("a cache on a method", "measure", {"measure": 12}, holder=("length",)),)


class _Track:
    def __init__(self, number: int) -> None:
        self.points = [f"{number}/{point}".rjust(90) for point in range(50)]  # the line

    @functools.lru_cache(maxsize=None)  # noqa: B019, UP033
    def length(self) -> int:
        return len(self.points)


@app.task
def measure(number: int) -> int:
    """Each track is another one."""
    return _Track(number).length()
