"""A library's receiver notes when each task began, and never forgets: no task is to blame."""

from __future__ import annotations

import time
from typing import Any

from celery import signals

from tests.truth.app import app, receiver
from tests.truth.case import ANY, Case

_begun_s: dict[str, tuple[float, str]] = {}
CASES = (
    Case("a receiver of task_prerun", ANY, {"add": 60}, where=("receiver",), holder=("_begun_s",)),
)


@receiver(signals.task_prerun)
def _begin(task_id: str, **_: Any) -> None:
    _begun_s[task_id] = (time.time(), f"task {task_id} began")  # the line


@app.task
def add(number: int) -> int:
    """Is healthy."""
    return number + 1
