"""Handles of results, and subscriptions to their channels, are kept for ever."""

from __future__ import annotations

from collections.abc import Callable

from celery.result import AsyncResult

from tests.truth.app import app
from tests.truth.case import Case

_waiting: dict[str, AsyncResult] = {}
_channels: dict[str, list[Callable[[str], object]]] = {}
CASES = (
    Case("results kept", "start", {"start": 15}, holder=("_waiting",)),
    Case("subscriptions kept", "subscribe", {"subscribe": 15}, holder=("_channels",)),
)


@app.task
def start(number: int) -> None:
    """Means to ask for the result of another task."""
    _waiting[str(number)] = AsyncResult(str(number).rjust(36, "0"), app=app)  # the line


@app.task
def subscribe(number: int) -> None:
    """Listens on a channel of its own, and never unsubscribes."""
    seen: list[str] = [str(number).rjust(2_000)]  # the line
    _channels[f"result-{number}"] = [seen.append]  # the line
