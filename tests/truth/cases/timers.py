"""Each run makes a timer for later that is never started: the library allocates."""

from __future__ import annotations

import threading

from tests.truth.app import app
from tests.truth.case import Case

_timers: list[threading.Timer] = []
CASES = (Case("timers through a library", "remind", {"remind": 15}, holder=("_timers",)),)


def _ring(text: str) -> int:
    return len(text)


@app.task
def remind(number: int) -> None:
    """Means to remind."""
    _timers.append(threading.Timer(3_600, _ring, (number,)))  # the line
