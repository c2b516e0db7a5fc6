"""Children inherit a large parent, and copy its pages while they read them."""

from __future__ import annotations

import os

from tests.truth.app import app
from tests.truth.case import Case

_catalogue: list[str] = []
CASES = (Case("a large parent", None, {"browse": 15}, fills=("browse",)),)
if "TRUTH_BROKER" in os.environ:
    _catalogue += [f"article {number}".ljust(100) for number in range(300_000)]


@app.task
def browse(number: int) -> int:
    """Reads a part of it: counting references writes to its pages."""
    begin = number * 2_000 % (len(_catalogue) or 1)
    return sum(map(len, list(_catalogue[begin : begin + 2_000])))
