"""The distributions of how long children live, and of what it costs and brings to replace them."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.metrics import Histogram

from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry.metrics import NO_CONTEXT, distribution


class RecyclingMetrics:
    """Instruments by the reason for which a child ended."""

    def __init__(self, histogram: Callable[..., Histogram]) -> None:
        self._tasks = distribution(c.PROCESS_TASKS, histogram)
        self._lifetime = distribution(c.PROCESS_LIFETIME, histogram)
        self._gap = distribution(c.RECYCLING_GAP, histogram)
        self._freed = distribution(c.RECYCLING_FREED, histogram)

    def lived(self, reason: str, tasks: int, lifetime_s: float) -> None:
        """Count a child's life."""
        attributes = {c.EXIT_REASON: reason}
        self._tasks.record(tasks, attributes, NO_CONTEXT)
        self._lifetime.record(lifetime_s, attributes, NO_CONTEXT)

    def replaced(self, reason: str, gap_s: float, freed_bytes: int | None) -> None:
        """Count that a child's place was taken by another."""
        attributes = {c.EXIT_REASON: reason}
        self._gap.record(gap_s, attributes, NO_CONTEXT)
        if freed_bytes is not None:
            self._freed.record(freed_bytes, attributes, NO_CONTEXT)
