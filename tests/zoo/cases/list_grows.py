"""A list and a dict of a module that only grow: 10 KiB a run."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_feeds: list[str] = []
_prices: dict[int, str] = {}
CASES = (
    Case("a list that only grows", "feed", {"feed": 20}, holder=("_feeds",)),
    Case("a dict that only grows", "quote", {"quote": 20}, holder=("_prices",)),
)


@app.task
def feed(number: int) -> None:
    """Keeps an entry."""
    _feeds.append(str(number).rjust(10_240))  # the line


@app.task
def quote(number: int) -> None:
    """Keeps a price."""
    _prices[number] = str(number).rjust(10_240)  # the line
