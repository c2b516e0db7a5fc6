"""A histogram instrument that costs 1 to 2 us a measurement where the SDK's costs 8.

The reporter records three or four values for every task of a worker. It has one reader and no
views, so most of what the SDK does for a measurement is not needed there. `TaskHistogram` is an
instrument of OpenTelemetry's API, so the emitter does not know the difference, and its points go
out through the SDK's reader with all the others (`reader.py`).
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData

_POINTS_MAX = 2_000
_OVERFLOW = (("otel.metric.overflow", True),)


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


class TaskHistogram(Histogram):
    """An explicit-bucket histogram, cumulative or delta, the last sampled exemplar a bucket."""

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
            # An empty context, as most are, has no span.
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
        """The metric as it goes out now; ``None`` where nothing was recorded."""
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


def wants_sdk_histogram(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user asked for a histogram that only the SDK's own instrument makes."""
    wanted = environ.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "")
    return wanted.strip().lower() == "base2_exponential_bucket_histogram"


def wanted_exemplars(environ: Mapping[str, str] = os.environ) -> str:
    """``trace_based``, ``always_on`` (here: of every span) or ``always_off``."""
    wanted = environ.get("OTEL_METRICS_EXEMPLAR_FILTER", "").strip().lower()
    return wanted if wanted in ("always_on", "always_off") else "trace_based"


def wants_delta(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether histograms are to be sent as deltas: ``delta`` and ``lowmemory`` both say so."""
    wanted = environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "")
    return wanted.strip().lower() in ("delta", "lowmemory")
