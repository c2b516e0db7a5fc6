"""Two tasks wait side by side in one process; one of them keeps 20 KB."""

from __future__ import annotations

import time

from tests.truth.app import app
from tests.truth.case import Case

_seen: list[str] = []
_HOLDER = ("_seen",)
_RATES = {"poll": 8, "ping": 12}
CASES = (
    Case(
        "overlapping in gevent",
        "poll",
        _RATES,
        worker=("--pool=gevent", "--concurrency=20"),
        holder=_HOLDER,
    ),
    Case(
        "overlapping in threads",
        "poll",
        _RATES,
        worker=("--pool=threads", "--concurrency=8"),
        holder=_HOLDER,
    ),
)


@app.task
def poll(number: int) -> None:
    """Waits, and keeps what came."""
    time.sleep(0.2)
    _seen.append(str(number).rjust(20_000))  # the line


@app.task
def ping(number: int) -> int:
    """Waits."""
    time.sleep(0.2)
    return number
