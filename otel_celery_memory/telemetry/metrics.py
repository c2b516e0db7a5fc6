"""The metrics, as instruments of OpenTelemetry's API on whatever meter they are given.

Distributions are recorded as they come. Counts and levels are kept by the emitter and read by
callbacks when somebody collects: a count costs a dictionary entry instead of a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import NO_SPAN, TaskFinished

Level = tuple[int | float, Mapping[str, str | bool]]
"""A value and its attributes."""


class BoundedNames:
    """At most `limit` values of an attribute; those that come later become ``_other``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: set[str] = set()

    def bounded(self, name: str) -> str:
        """The name to use as an attribute's value."""
        if name in self._names:
            return name
        if len(self._names) >= self._limit:
            return c.OTHER
        self._names.add(name)
        return name


def distribution(metric: c.Metric, histogram: Callable[..., Histogram]) -> Histogram:
    """The instrument of a metric that is recorded, made by what makes histograms."""
    return histogram(
        metric.name,
        unit=metric.unit,
        description=metric.meaning,
        explicit_bucket_boundaries_advisory=list(metric.bounds),
    )


class TaskMetrics:
    """The distributions of what tasks did to memory."""

    def __init__(self, histogram: Callable[..., Histogram]) -> None:
        self._rss_delta = distribution(c.RSS_DELTA, histogram)
        self._rss_peak = distribution(c.RSS_PEAK, histogram)
        self._rss_retained = distribution(c.RSS_RETAINED, histogram)
        self._traced_delta = distribution(c.TRACED_DELTA, histogram)
        self._traced_peak = distribution(c.TRACED_PEAK, histogram)

    def finished(self, record: TaskFinished, task: str) -> None:
        """Count a finished task that had its process to itself; `task` is the bounded name."""
        context = span_context(record.span)
        plain = {c.TASK_NAME: task}
        _record_change(self._rss_delta, record.rss_delta_bytes, task, context)
        if record.rss_peak_bytes is not None:
            self._rss_peak.record(record.rss_peak_bytes, plain, context)
        if record.traced_delta_bytes is not None:
            _record_change(self._traced_delta, record.traced_delta_bytes, task, context)
        if record.traced_peak_bytes is not None:
            self._traced_peak.record(record.traced_peak_bytes, plain, context)

    def retained(self, task: str, retained_bytes: int) -> None:
        """Count what a task left behind until the next one started."""
        _record_change(self._rss_retained, retained_bytes, task, NO_CONTEXT)


NO_CONTEXT = Context()


def _record_change(histogram: Histogram, change: int, task: str, context: Context) -> None:
    """Size and direction: a histogram takes no negative value, the SDK drops it."""
    direction = c.GROW if change >= 0 else c.SHRINK
    # An exemplar of more makes the exporter give up all metrics.
    size_bytes = min(abs(change), 2**63 - 1)
    histogram.record(size_bytes, {c.TASK_NAME: task, c.DIRECTION: direction}, context)


def span_context(span: bytes) -> Context:
    """A context with the span that a record names, for exemplars and for events."""
    if span == NO_SPAN:
        return NO_CONTEXT
    identity = trace.SpanContext(
        trace_id=int.from_bytes(span[:16], "big"),
        span_id=int.from_bytes(span[16:24], "big"),
        is_remote=True,
        trace_flags=trace.TraceFlags(span[24]),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(identity), NO_CONTEXT)


def observe_levels(meter: Meter, levels: Mapping[c.Metric, Callable[[], Iterable[Level]]]) -> None:
    """Make the observable instruments of all metrics that are read and not recorded."""
    for metric, read in levels.items():
        create = {
            "Counter": meter.create_observable_counter,
            "UpDownCounter": meter.create_observable_up_down_counter,
            "Gauge": meter.create_observable_gauge,
        }[metric.kind]
        create(
            metric.name,
            callbacks=[_callback(read)],
            unit=metric.unit,
            description=metric.meaning,
        )


def _callback(read: Callable[[], Iterable[Level]]) -> Callable[[CallbackOptions], Any]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, dict(attributes)) for value, attributes in read()]

    return observe
