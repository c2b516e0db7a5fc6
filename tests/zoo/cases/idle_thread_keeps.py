"""A thread of the application's keeps something while no task runs."""

from __future__ import annotations

import threading
import time
from typing import Any

from celery import signals

from tests.truth.app import app, receiver
from tests.truth.case import ANY, Case

_polled: list[str] = []
CASES = (Case("a thread beside the tasks", ANY, {"rare": 1}, where=("idle",), holder=("_polled",)),)


def _poll() -> None:
    while True:
        time.sleep(0.05)
        _polled.append(str(len(_polled)).rjust(8_000))  # the line


@receiver(signals.worker_process_init)
def _start(**_: Any) -> None:
    threading.Thread(target=_poll, daemon=True).start()


@app.task
def rare(number: int) -> int:
    """Is healthy."""
    return number
