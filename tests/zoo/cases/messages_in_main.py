"""The main process holds what is not due, or was revoked: it grows, and no task does."""

from __future__ import annotations

import uuid
from typing import Any

from tests.truth.app import app
from tests.truth.case import ANY, Case

CASES = (
    Case(
        "messages with an ETA",
        ANY,
        {"later": 60, "small": 8},
        kinds=("messages",),
        where=("main",),
        has_line=False,
        options={"later": {"countdown": 7_200}},
    ),
    Case(
        "a set of revoked ids",
        ANY,
        {"cancel": 5},
        kinds=("messages", "python"),
        where=("main",),
        has_line=False,
        environ={"CELERY_WORKER_REVOKES_MAX": "100000000"},
    ),
)


@app.task
def later(number: int) -> int:
    """Is due in two hours."""
    return number


@app.task
def small(number: int) -> int:
    """Is healthy."""
    return number + 1


@app.task(bind=True)
def cancel(self: Any, number: int) -> int:
    """Revokes fifty tasks that nobody sent, in this worker alone."""
    ids = [str(uuid.uuid4()) for _ in range(50)]
    app.control.revoke(ids, destination=[self.request.hostname])
    return number
