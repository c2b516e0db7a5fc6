"""The main process keeps something of each message that it receives."""

from __future__ import annotations

from typing import Any

from celery import signals

from tests.truth.app import app, receiver
from tests.truth.case import ANY, Case

_received: list[str] = []
CASES = (
    Case("the main process keeps", ANY, {"greet": 20}, where=("main",), holder=("_received",)),
)


@receiver(signals.task_received)
def _note(request: Any, **_: Any) -> None:
    _received.append(f"{request.id} {request.name}".rjust(6_000))  # the line


@app.task
def greet(number: int) -> str:
    """Is healthy."""
    return f"hello {number}"
