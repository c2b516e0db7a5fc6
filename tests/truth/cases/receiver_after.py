"""A receiver of the end of tasks keeps a report of each: no task is to blame."""

from __future__ import annotations

from typing import Any

from celery import signals

from tests.truth.app import app, receiver
from tests.truth.case import ANY, Case

_reports: list[dict[str, Any]] = []
CASES = (
    Case(
        "a receiver of task_postrun",
        ANY,
        {"subtract": 30},
        where=("receiver",),
        holder=("_reports",),
    ),
)


@receiver(signals.task_postrun)
def _end(task_id: str, state: str | None, **_: Any) -> None:
    _reports.append({"id": task_id, "state": state, "text": f"{task_id} is {state}"})  # the line


@app.task
def subtract(number: int) -> int:
    """Is healthy."""
    return number - 1
