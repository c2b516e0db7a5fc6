"""A cache without a bound on a function that gets another argument each time."""

from __future__ import annotations

import functools

from tests.truth.app import app
from tests.truth.case import Case

_RATES = {"price": 15}
CASES = (
    Case("a cache without a bound", "price", _RATES, holder=("_quote",)),
    Case(
        "a leak in children that are recycled",
        "price",
        _RATES,
        worker=("--concurrency=2", "--max-tasks-per-child=100"),
        holder=("_quote",),
    ),
    Case(
        "a leak in a worker without children",
        "price",
        _RATES,
        worker=("--pool=solo",),
        holder=("_quote",),
    ),
)


@functools.cache
def _quote(number: int) -> str:
    return str(number).rjust(3_000)  # the line


@app.task
def price(number: int) -> int:
    """Asks for a quote that nobody asked for before."""
    return len(_quote(number))
