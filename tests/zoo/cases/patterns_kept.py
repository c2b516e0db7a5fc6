"""A cache of compiled patterns of its own, fed with another text each time."""

from __future__ import annotations

import re

from tests.truth.app import app
from tests.truth.case import Case

_patterns: dict[str, re.Pattern[str]] = {}
CASES = (Case("patterns of unique strings", "route", {"route": 10}, holder=("_patterns",)),)


@app.task
def route(number: int) -> bool:
    """Matches a route that nobody asked for before."""
    text = f"^/orders/{number}/(items|prices)/[a-z]+$"
    if text not in _patterns:
        re.purge()
        _patterns[text] = re.compile(text)  # the line
    return _patterns[text].match(f"/orders/{number}/items/a") is not None
