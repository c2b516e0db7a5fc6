"""A pool of threads in each run: what was freed in its threads stays in malloc's arenas."""

from __future__ import annotations

from multiprocessing.pool import ThreadPool

from tests.truth.app import MIB, app
from tests.truth.case import Case
from tests.truth.findings import KeptFree

CASES = (
    Case(
        "threads that end, and their arenas",
        None,
        {"resize": 2},
        shows=(KeptFree(4 * MIB),),
        fills=("resize",),
    ),
)


def _part(number: int) -> int:
    return sum(map(len, [bytes([number % 251]) * 60_000 for _ in range(60)]))


@app.task
def resize(number: int) -> int:
    """Works in ten threads, and ends them."""
    with ThreadPool(10) as pool:
        return sum(pool.map(_part, range(number, number + 40)))
