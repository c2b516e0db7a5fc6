"""A leak that is mended while the worker runs, as by a flag or by code that is loaded again."""

from __future__ import annotations

import time

from tests.truth.app import app
from tests.truth.case import Case

_kept: list[str] = []
_BEGAN_S = time.monotonic()
_LEAKS_S = 150
CASES = (
    Case(
        "a leak that is mended",
        "mirror",
        {"mirror": 20},
        seconds=600,
        holder=("_kept",),
        ends=True,
    ),
)


@app.task
def mirror(number: int) -> int:
    """Keeps 16 KB until it is mended."""
    if time.monotonic() - _BEGAN_S < _LEAKS_S:
        _kept.append(str(number).rjust(16_000))  # the line
    return number
