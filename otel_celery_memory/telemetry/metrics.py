"""The metrics, as instruments of OpenTelemetry's API on whatever meter they are given.

Distributions are recorded at once. The emitter keeps counts and levels, and callbacks read them
when metrics are collected: a count costs a dictionary entry instead of a measurement.

The reporter records three or four values for every task, and the SDK's histogram costs 8 us a
measurement. The reporter has one reader and no views, so it needs little of what the SDK does:
`TaskHistogram` costs 1 to 2 us. It is an instrument of OpenTelemetry's API, so the emitter uses
both alike, and the SDK's reader exports its points with all others (`export_checkpoints.py`). If
the user asks for exponential histograms, the SDK's own is used.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import NO_SPAN, RunRetained, TaskFinished

_POINTS_MAX = 2_000
_OVERFLOW = (("otel.metric.overflow", True),)
Level = tuple[int | float, Mapping[str, str | bool | int]]
"""A value and its attributes."""


class _Point:
    """One attribute set's distribution."""

    __slots__ = ("buckets", "count", "exemplars", "max", "min", "sum")

    def __init__(self, bucket_count: int) -> None:
        self.buckets = [0] * bucket_count
        self.exemplars: list[Exemplar | None] = [None] * bucket_count
        self.count = 0
        self.sum = 0.0
        self.min = float("inf")
        self.max = float("-inf")


class Series(dict[str, str]):
    """Attributes with what `TaskHistogram` finds their point by: made once, used for each run."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        super().__init__(attributes)
        self.key = tuple(attributes.items())


class TaskHistogram(Histogram):
    """A histogram of explicit buckets, cumulative or delta; a bucket keeps its last exemplar."""

    def __init__(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
        *,
        delta: bool = False,
        exemplars: str = "trace_based",
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self._bounds = tuple(explicit_bucket_boundaries_advisory or ())
        self._delta = delta
        self._exemplars = exemplars
        self._clock_ns = clock_ns
        self._start_ns = clock_ns()
        self._points: dict[tuple[tuple[str, Any], ...], _Point] = {}
        self._lock = Lock()

    def record(
        self,
        amount: float,
        attributes: Mapping[str, Any] | None = None,
        context: Context | None = None,
    ) -> None:
        if type(attributes) is Series:
            key = attributes.key
        else:
            key = tuple(attributes.items()) if attributes else ()
        with self._lock:
            point = self._points.get(key)
            if point is None:
                point = self._new_point(key)
            bucket = bisect_left(self._bounds, amount)
            point.buckets[bucket] += 1
            point.count += 1
            point.sum += amount
            # Compared here: calling min() and max() is a quarter of the cost of all this.
            if amount < point.min:  # noqa: PLR1730
                point.min = amount
            if amount > point.max:  # noqa: PLR1730
                point.max = amount
            # Most contexts are empty and have no span.
            if context and self._exemplars != "always_off":
                span = trace.get_current_span(context).get_span_context()
                if span.is_valid and (span.trace_flags.sampled or self._exemplars == "always_on"):
                    point.exemplars[bucket] = Exemplar(
                        {}, amount, self._clock_ns(), span.span_id, span.trace_id
                    )

    def _new_point(self, key: tuple[tuple[str, Any], ...]) -> _Point:
        if len(self._points) >= _POINTS_MAX:
            key = _OVERFLOW
        return self._points.setdefault(key, _Point(len(self._bounds) + 1))

    def collect(self) -> Metric | None:
        """The metric as it is now; ``None`` if nothing was recorded."""
        now_ns = self._clock_ns()
        with self._lock:
            points = [
                HistogramDataPoint(
                    attributes=dict(key),
                    start_time_unix_nano=self._start_ns,
                    time_unix_nano=now_ns,
                    count=point.count,
                    sum=point.sum,
                    bucket_counts=tuple(point.buckets),
                    explicit_bounds=self._bounds,
                    min=point.min,
                    max=point.max,
                    exemplars=[exemplar for exemplar in point.exemplars if exemplar],
                )
                for key, point in self._points.items()
            ]
            if self._delta:
                self._points.clear()
                self._start_ns = now_ns
            else:
                for point in self._points.values():
                    point.exemplars = [None] * len(point.exemplars)
        if not points:
            return None
        temporality = (
            AggregationTemporality.DELTA if self._delta else AggregationTemporality.CUMULATIVE
        )
        return Metric(self.name, self.description, self.unit, HistogramData(points, temporality))


def exemplar_filter(environ: Mapping[str, str] = os.environ) -> str:
    """``trace_based``, ``always_on`` (here: of every span) or ``always_off``."""
    wanted = environ.get("OTEL_METRICS_EXEMPLAR_FILTER", "").strip().lower()
    return wanted if wanted in ("always_on", "always_off") else "trace_based"


class BoundedNames:
    """At most `limit` values of an attribute; later ones become ``_other``."""

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
    """The histogram of a metric; ``histogram`` is the factory."""
    return histogram(
        metric.name,
        unit=metric.unit,
        description=metric.meaning,
        explicit_bucket_boundaries_advisory=list(metric.bounds),
    )


class TaskMetrics:
    """Distributions of the memory that tasks took and left."""

    def __init__(self, histogram: Callable[..., Histogram]) -> None:
        self._rss_delta = distribution(c.RSS_DELTA, histogram)
        self._rss_peak = distribution(c.RSS_PEAK, histogram)
        self._rss_retained = distribution(c.RSS_RETAINED, histogram)
        self._left_behind = {
            metric.name: distribution(metric, histogram) for metric in c.RETAINED_METRICS
        }
        self._traced_delta = distribution(c.TRACED_DELTA, histogram)
        self._traced_peak = distribution(c.TRACED_PEAK, histogram)
        self._tree_peak = distribution(c.TREE_PEAK, histogram)

    def finished(self, record: TaskFinished, task: str) -> None:
        """Records a run that had its process to itself; ``task`` is the bounded name."""
        context = span_context(record.span)
        plain = _series(task)
        _record_change(self._rss_delta, record.rss_delta_bytes, task, context)
        if record.rss_peak_bytes is not None:
            self._rss_peak.record(record.rss_peak_bytes, plain, context)
        if record.traced_delta_bytes is not None:
            _record_change(self._traced_delta, record.traced_delta_bytes, task, context)
        if record.traced_peak_bytes is not None:
            self._traced_peak.record(record.traced_peak_bytes, plain, context)

    def tree_peak(self, record: TaskFinished, task: str, peak_bytes: int) -> None:
        """Records the peak of a run with the processes that it started."""
        self._tree_peak.record(peak_bytes, _series(task), span_context(record.span))

    def retained(self, task: str, retained_bytes: int, *, warm_up: bool) -> None:
        """Records how the process's RSS changed from a run's start until the next one started."""
        _record_change(self._rss_retained, retained_bytes, task, NO_CONTEXT, warm_up=warm_up)

    def left_behind(self, record: RunRetained, task: str) -> None:
        """Records what a sampled run left behind; ``task`` is the bounded name."""
        warm_up = bool(record.warm_up)
        heap = self._left_behind[c.HEAP_RETAINED.name]
        if record.heap_bytes is not None:
            told = abs(record.heap_bytes) >= record.least_bytes
            size_bytes = record.heap_bytes if told else 0
            _record_change(heap, size_bytes, task, NO_CONTEXT, warm_up=warm_up)
        if warm_up:
            return
        _record_change(self._left_behind[c.BLOCKS_RETAINED.name], record.blocks, task, NO_CONTEXT)
        for metric, change in (
            (c.OPEN_FILES_RETAINED, record.open_files),
            (c.THREADS_RETAINED, record.threads),
            (c.HEAP_GARBAGE, record.garbage_bytes),
        ):
            # Most tasks never change these: their series would say nothing.
            if change and (metric != c.HEAP_GARBAGE or change > 0):
                _record_change(self._left_behind[metric.name], change, task, NO_CONTEXT)


NO_CONTEXT = Context()


def _record_change(
    histogram: Histogram, change: int, task: str, context: Context, *, warm_up: bool = False
) -> None:
    """Records size and direction: the SDK drops negative values of a histogram."""
    direction = c.SHRINK if change < 0 else c.WARM_UP if warm_up else c.GROW
    # An exemplar of more than 64 bits makes the exporter drop all metrics.
    size_bytes = min(abs(change), 2**63 - 1)
    histogram.record(size_bytes, _series(task, direction), context)


@lru_cache(maxsize=4 * c.TASK_NAMES_MAX)
def _series(task: str, direction: str = "") -> Series:
    return Series({c.TASK_NAME: task, c.DIRECTION: direction} if direction else {c.TASK_NAME: task})


def in_64_bits(value: int) -> int:
    """The value within 64 bits, as OTLP carries it: forged records may add up to more."""
    return min(max(value, -(2**63)), 2**63 - 1)


def span_context(span: bytes) -> Context:
    """A context with a record's span (trace id, span id, flags), for exemplars and events."""
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
    """Creates an observable instrument for each metric; the callbacks return values to export."""
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


class RecyclingMetrics:
    """Distributions of the lives and replacements of children, by exit reason."""

    def __init__(self, histogram: Callable[..., Histogram]) -> None:
        self._tasks = distribution(c.PROCESS_TASKS, histogram)
        self._lifetime = distribution(c.PROCESS_LIFETIME, histogram)
        self._gap = distribution(c.RECYCLING_GAP, histogram)
        self._freed = distribution(c.RECYCLING_FREED, histogram)

    def lived(self, reason: str, tasks: int, lifetime_s: float) -> None:
        """Records a child's life: tasks that it ran, and seconds."""
        attributes = {c.EXIT_REASON: reason}
        self._tasks.record(tasks, attributes, NO_CONTEXT)
        self._lifetime.record(lifetime_s, attributes, NO_CONTEXT)

    def replaced(self, reason: str, gap_s: float, freed_bytes: int | None) -> None:
        """Records that a child was replaced: seconds without a process, and bytes of RSS freed."""
        attributes = {c.EXIT_REASON: reason}
        self._gap.record(gap_s, attributes, NO_CONTEXT)
        if freed_bytes is not None:
            self._freed.record(freed_bytes, attributes, NO_CONTEXT)
