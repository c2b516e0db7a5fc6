"""A task's own base class keeps a report of each run, after the task has returned."""

from __future__ import annotations

from typing import Any

from celery import Task

from tests.truth.app import app
from tests.truth.case import Case

_reports: list[str] = []
CASES = (
    Case("after_return of the task's class", "convert", {"convert": 15}, holder=("_reports",)),
)


class _Reporting(Task):  # type: ignore[misc]
    def after_return(self, status: str, retval: Any, task_id: str, *_: Any) -> None:
        _reports.append(f"{task_id} {status} {retval}".rjust(2_000))  # the line


@app.task(base=_Reporting)
def convert(number: int) -> int:
    """Is healthy itself."""
    return number * 3
