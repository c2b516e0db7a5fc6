"""A receiver opens a connection to the broker before each task and keeps it."""

from __future__ import annotations

from typing import Any

from celery import signals

from otel_celery_memory import conventions as c
from tests.truth.app import app, receiver
from tests.truth.case import ANY, Case
from tests.truth.findings import FilesShown, KeptByRuns

_connections: list[Any] = []
CASES = (
    Case(
        "a receiver that connects",
        ANY,
        {"multiply": 1},
        shows=(KeptByRuns(ANY, c.OPEN_FILES_RETAINED, c.OPEN_FILES), FilesShown(100)),
        kinds=("file_descriptors", "python"),
        where=("receiver",),
        holder=("_connections",),
    ),
)


@receiver(signals.task_prerun)
def _watch(**_: Any) -> None:
    connection = app.connection_for_write()  # the line
    connection.default_channel.client.ping()  # the line
    _connections.append(connection)


@app.task
def multiply(number: int) -> int:
    """Is healthy."""
    return number * 2
