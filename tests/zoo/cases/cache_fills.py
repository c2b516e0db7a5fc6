"""A bounded cache that fills up for two thousand runs, and is full then."""

from __future__ import annotations

import functools

from tests.truth.app import app
from tests.truth.case import Case

CASES = (
    Case("a cache that fills up", None, {"render": 20}, seconds=420, fills=("render",)),
    Case(
        "a small cache that fills up",
        None,
        {"render_small": 40},
        seconds=240,
        fills=("render_small",),
    ),
)


@functools.lru_cache(maxsize=2_000)
def _page(number: int) -> str:
    return str(number).rjust(10_000)


@functools.lru_cache(maxsize=2_000)
def _row(number: int) -> str:
    return str(number).rjust(1_000)


@app.task
def render(number: int) -> int:
    """Each page is another one."""
    return len(_page(number))


@app.task
def render_small(number: int) -> int:
    """Each row is another one."""
    return len(_row(number))
