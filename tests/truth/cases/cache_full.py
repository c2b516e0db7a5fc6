"""A cache of 96 results on a method keeps its objects of half a megabyte; then it is full."""

from __future__ import annotations

import functools

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("a cache that is full", None, {"profile": 8}, fills=("profile",)),)


class _Track:
    def __init__(self, number: int) -> None:
        self.points = bytearray(500_000)
        self.number = number

    @functools.lru_cache(maxsize=96)  # noqa: B019
    def length(self) -> int:
        return self.number % 7


@app.task
def profile(number: int) -> int:
    """Each track is another one."""
    return _Track(number).length()
