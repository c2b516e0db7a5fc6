"""A task that computes for long and keeps a mebibyte: too long to be traced whole."""

from __future__ import annotations

import time

from tests.truth.app import app
from tests.truth.case import Case

_renders: list[bytearray] = []
CASES = (Case("a long task that keeps much", "render", {"render": 3}, holder=("_renders",)),)


@app.task
def render(number: int) -> int:
    """Computes for some 60 ms of CPU time."""
    until_s = time.process_time() + 0.06
    drawn = 0
    while time.process_time() < until_s:
        drawn += len([str(point) for point in range(number, number + 300)])
    _renders.append(bytearray(1_000_000))  # the line
    return drawn
