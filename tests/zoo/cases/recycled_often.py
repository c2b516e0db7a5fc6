"""Children are recycled after twenty runs, and each warms up anew."""

from __future__ import annotations

import functools

from tests.truth.app import app
from tests.truth.case import Case

CASES = (
    Case(
        "recycled after twenty runs",
        None,
        {"convert": 12},
        worker=("--concurrency=2", "--max-tasks-per-child=20"),
        fills=("convert",),
    ),
)


@functools.lru_cache(maxsize=64)
def _rates(currency: int) -> list[str]:
    return [f"{currency}/{day}" for day in range(300)]


@app.task
def convert(number: int) -> int:
    """Imports what it needs, and fills a small cache."""
    import fractions
    import statistics

    return (
        int(statistics.mean(map(len, _rates(number % 64)))) + fractions.Fraction(number).numerator
    )
