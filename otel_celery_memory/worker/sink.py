"""Where a worker's records go: the one question all of the worker side asks of it."""

from __future__ import annotations

from typing import Protocol

from otel_celery_memory.ipc.records import Record


class Sink(Protocol):
    """Takes records; must not raise and must not wait."""

    def send(self, record: Record) -> bool:
        """Pass a record on, or drop and count it: ``False``."""
