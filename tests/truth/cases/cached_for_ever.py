"""A cache without a bound on a function that gets another argument each time."""

from __future__ import annotations

import functools

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("a cache without a bound", "price", {"price": 15}),)


@functools.cache
def _quote(number: int) -> str:
    return str(number).rjust(3_000)  # the line


@app.task
def price(number: int) -> int:
    """Asks for a quote that nobody asked for before."""
    return len(_quote(number))
