"""Only one value of the argument leaks: one customer's orders."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_carts: list[str] = []
CASES = (Case("one argument's value", "checkout", {"checkout": 20}, holder=("_carts",)),)


@app.task
def checkout(number: int) -> int:
    """Keeps 20 KB for each eighth, which is always the same customer's."""
    customer = number % 8
    if customer == 3:
        _carts.append(str(number).rjust(20_000))  # the line
    return customer
