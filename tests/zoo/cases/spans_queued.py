"""A telemetry library puts a span into a queue that nobody empties."""

from __future__ import annotations

import queue
from typing import Any

from tests.truth.app import app
from tests.truth.case import Case

_queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
CASES = (Case("a telemetry queue", "trace", {"trace": 15}, holder=("_queue",)),)


@app.task
def trace(number: int) -> None:
    """Ends three spans."""
    for step in range(3):
        attributes = {f"key{n}": f"{number}/{step}/{n}" for n in range(10)}  # the line
        _queue.put({"name": "trace", "attributes": attributes})
