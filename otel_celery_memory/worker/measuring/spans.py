"""The task's numbers as attributes of its span, whoever started that span.

Read at postrun, before any other receiver: Celery's own OpenTelemetry instrumentation ends its
span in its postrun receiver, and what is set on an ended span is lost. Where nobody traces the
task, a span of our own is made after the fact, from the start we noted and the trace context
that came with the message. Where the search for the span fails there are no spans, all else goes
on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from opentelemetry import propagate, trace
from opentelemetry.context import Context, get_current
from opentelemetry.environment_variables import OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, SpanKind, TracerProvider

from otel_celery_memory import conventions as c
from otel_celery_memory.circuit_breaker import PartSwitches
from otel_celery_memory.conventions import VERSION
from otel_celery_memory.ipc.records import NO_SPAN, TaskFinished

FoundSpan = tuple[Span | None, bool]


class _RequestGetter(Getter[Any]):
    """Reads trace context from a task's request, where Celery puts the message's headers."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        value = getattr(carrier, key, None)
        if value is None:
            return None
        if not isinstance(value, str) and isinstance(value, Iterable):
            return [str(part) for part in value]
        return [str(value)]

    def keys(self, carrier: Any) -> list[str]:
        return []


_GETTER = _RequestGetter()
_NOT_SET = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)


class TaskSpans:
    """Finds or makes the span that a task's numbers belong on."""

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._provider = tracer_provider
        self._by_environment = OTEL_PYTHON_TRACER_PROVIDER in os.environ

    def of(self, task: Any, started_ns: int) -> tuple[Span | None, bool]:
        """The task's span, and whether it is our own and has to be ended by `write`.

        ``None`` where tracing is not set up, or has decided not to record this task.
        """
        # Most tasks of most workers have no context at all, and to know that is cheap.
        context = get_current()
        current = trace.get_current_span(context) if context else trace.INVALID_SPAN
        if current is not trace.INVALID_SPAN:
            if current.is_recording():
                return current, False
            if current.get_span_context().is_valid and not current.get_span_context().is_remote:
                # Somebody traces this task and sampled it out.
                return None, False
        provider = self._provider
        if provider is None:
            # Where none is set, asking for it looks into the environment each time, which costs
            # as much as measuring RSS.
            if getattr(trace, "_TRACER_PROVIDER", self) is None and not self._by_environment:
                return None, False
            provider = trace.get_tracer_provider()
        if isinstance(provider, _NOT_SET):
            return None, False
        parent: Context = propagate.extract(task.request, getter=_GETTER)
        span = provider.get_tracer(c.SCOPE, VERSION).start_span(
            f"run/{task.name}", context=parent, kind=SpanKind.CONSUMER, start_time=started_ns
        )
        return (span, True) if span.is_recording() else (None, False)

    @staticmethod
    def write(span: Span, own: bool, finished: TaskFinished) -> None:
        """Put a finished task's numbers on its span; ends the span where it is our own."""
        attributes: dict[str, int | bool | str] = {
            c.SPAN_RSS_START: finished.rss_start_bytes,
            c.SPAN_RSS_DELTA: finished.rss_delta_bytes,
            c.SPAN_EXCLUSIVE: bool(finished.exclusive),
        }
        optional = {
            c.SPAN_RSS_PEAK: finished.rss_peak_bytes,
            c.SPAN_TRACED_DELTA: finished.traced_delta_bytes,
            c.SPAN_TRACED_PEAK: finished.traced_peak_bytes,
        }
        attributes |= {name: value for name, value in optional.items() if value is not None}
        if own:
            attributes[c.TASK_NAME] = finished.task
            attributes[c.TASK_ID] = finished.task_id
        span.set_attributes(attributes)
        if own:
            span.end(end_time=finished.time_ns)


def span_bytes(span: Span | None) -> bytes:
    """A span's identity as records carry it; `NO_SPAN` where there is none."""
    if span is None:
        return NO_SPAN
    context = span.get_span_context()
    return (
        context.trace_id.to_bytes(16, "big")
        + context.span_id.to_bytes(8, "big")
        + bytes((context.trace_flags,))
    )


class ContainedSpans:
    """`TaskSpans` that never raise, but for a task's time limit."""

    def __init__(self, spans: TaskSpans, switches: PartSwitches) -> None:
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
