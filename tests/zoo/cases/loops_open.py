"""An event loop is made in each run and never closed: its selector and its pipe stay open."""

from __future__ import annotations

import asyncio

from tests.truth.app import app
from tests.truth.case import Case

_loops: list[asyncio.AbstractEventLoop] = []
CASES = (
    Case(
        "event loops never closed",
        "gather",
        {"gather": 2},
        kinds=("file_descriptors",),
        holder=("_loops",),
    ),
)


async def _answer(number: int) -> int:
    return number


@app.task
def gather(number: int) -> int:
    """Runs a coroutine to its end."""
    _loops.append(asyncio.new_event_loop())  # the line
    return _loops[-1].run_until_complete(_answer(number))
