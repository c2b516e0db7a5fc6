"""Patterns are compiled anew in each run: the library's cache of 512 fills up, and is full."""

from __future__ import annotations

import re

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("a library's cache that is full", None, {"grep": 40}, fills=("grep",)),)


@app.task
def grep(number: int) -> bool:
    """Looks for another number each time."""
    return re.search(f"^{number} (a|b)+$", f"{number} ab") is not None
