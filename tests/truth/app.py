"""The Celery app of every case: the tasks of the case's module, and two beside them.

``TRUTH_CASE`` names the modules, with commas. Without ``TRUTH_BROKER`` nothing is instrumented:
that is how the cases are read by the process that sends their tasks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from celery import Celery

from otel_celery_memory import CeleryMemoryInstrumentor

MIB = 1 << 20

app = Celery("truth", broker=os.environ.get("TRUTH_BROKER", "memory://"), set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    task_ignore_result=True,
    imports=list(filter(None, os.environ.get("TRUTH_CASE", "").split(","))),
)
if "TRUTH_BROKER" in os.environ:
    # All that an application adds.
    CeleryMemoryInstrumentor().instrument()


Receiver = TypeVar("Receiver", bound=Callable[..., None])


def receiver(signal: Any) -> Callable[[Receiver], Receiver]:
    """Connects a receiver, in a worker: a process that only reads the cases is left as it is."""

    def connected(function: Receiver) -> Receiver:
        if "TRUTH_BROKER" in os.environ:
            signal.connect(function, weak=False)
        return function

    return connected


@app.task
def healthy(number: int) -> int:
    """Allocates, and keeps nothing."""
    rows = [{"number": number + n, "text": str(n), "list": [n]} for n in range(200)]
    return len(json.loads(json.dumps(rows)))


@app.task
def spike(number: int) -> int:
    """Takes 8 MiB and gives it back."""
    block = bytearray(8 * MIB)
    block[::4096] = bytes([number % 256]) * len(block[::4096])
    return len(block)
