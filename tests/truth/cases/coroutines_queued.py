"""Coroutines are handed to an event loop that nobody runs: asyncio keeps them, with their data."""

from __future__ import annotations

import asyncio

from tests.truth.app import app
from tests.truth.case import Case

_loop = asyncio.new_event_loop()
CASES = (Case("coroutines queued on a loop", "publish", {"publish": 12}, holder=("_loop",)),)


async def _deliver(body: str) -> int:
    return len(body)


@app.task
def publish(number: int) -> None:
    """Means to deliver later."""
    _loop.create_task(_deliver(f"{number}".rjust(5_000)))  # noqa: RUF006  # the line
