"""The search for a task's span, contained: where it fails there are no spans, all else goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from opentelemetry.trace import Span

from otel_celery_memory.circuit_breaker import Switches
from otel_celery_memory.ipc.records import TaskFinished
from otel_celery_memory.worker.measuring.spans import TaskSpans

FoundSpan = tuple[Span | None, bool]


class ContainedSpans:
    """`TaskSpans` that never raise, but for a task's time limit."""

    def __init__(self, spans: TaskSpans, switches: Switches) -> None:
        self._spans = spans
        self._switches = switches
        self.search: Callable[[Any, int], FoundSpan] = spans.of
        """`of` for hot paths, which call `failed` where it raises."""

    def of(self, task: Any, started_ns: int) -> FoundSpan:
        """As `TaskSpans.of`."""
        try:
            return self.search(task, started_ns)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            return self.failed()

    def write(self, span: Span, own: bool, finished: TaskFinished) -> None:
        """As `TaskSpans.write`."""
        try:
            self._spans.write(span, own, finished)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            self.failed()

    def failed(self) -> FoundSpan:
        """Search no more; called while the exception is handled."""
        self._switches.switch_off("spans")
        self.search = _none
        return None, False


def _none(task: Any, started_ns: int) -> FoundSpan:
    return None, False
