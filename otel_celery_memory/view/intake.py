"""Requests of OTLP as they come, over HTTP or gRPC, put into the store."""

from __future__ import annotations

import time
from collections.abc import Callable

from otel_celery_memory.view.otlp import check_spans, read_events, read_metrics
from otel_celery_memory.view.store import Store

BODY_BYTES_MAX = 8 << 20
"""Of a request as it is read; a worker of 200 task names sends some 1.5 MiB."""


class Intake:
    """Takes the bodies of requests. Each raises `MalformedError` for what is none."""

    def __init__(self, store: Store, clock_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock_s = clock_s

    def metrics(self, body: bytes) -> None:
        """A request for metrics."""
        for sender, samples in list(read_metrics(body)):
            self._store.take_metrics(sender, samples, self._clock_s())

    def logs(self, body: bytes) -> None:
        """A request for logs, of which events are kept."""
        for sender, events in list(read_events(body)):
            self._store.take_events(sender, events, self._clock_s())

    def traces(self, body: bytes) -> None:
        """A request for spans, of which nothing is kept."""
        check_spans(body)
