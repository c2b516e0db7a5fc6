"""One task leaks at two lines, nine tenths at one of them."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_bodies: list[str] = []
_headers: list[str] = []
CASES = (Case("two places, 90 to 10", "fetch", {"fetch": 15}, holder=("_bodies",)),)


@app.task
def fetch(number: int) -> None:
    """Keeps 9 KB here, and 1 KB there."""
    _bodies.append(str(number).rjust(9_000))  # the line
    _headers.append(str(number).rjust(1_000))
