"""Which collections of metrics an endpoint has taken, and the reader that makes and marks them.

Each collection is marked with how far the records were. It lies between two records: what it does
not tell is what the records after its mark do. The SDK's reader sends our histograms too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

from opentelemetry.sdk.metrics.export import (
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from otel_celery_memory.telemetry.metrics import TaskHistogram
from otel_celery_memory.telemetry.site_gauges import CurrentGauge


class Checkpoints(Protocol):
    """Who applies records."""

    applying: Lock
    """Held while records are applied."""

    def mark(self) -> int:
        """How far they have been applied."""

    def taken(self, mark: int) -> None:
        """An endpoint has what was told of all up to this mark."""


@dataclass(frozen=True)
class CheckpointedMetrics(MetricsData):
    """A collection, with how far the records were."""

    mark: int = 0


class CheckpointedExporter(MetricExporter):
    """An exporter before another one; tells of each collection that was taken."""

    def __init__(self, exporter: MetricExporter, marks: Checkpoints) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._marks = marks

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """As the other exporter does."""
        result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
        if result is MetricExportResult.SUCCESS and isinstance(metrics_data, CheckpointedMetrics):
            self._marks.taken(metrics_data.mark)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """As the other exporter does."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """As the other exporter does."""
        self._exporter.shutdown(timeout_millis, **kwargs)


class TaskHistogramReader(PeriodicExportingMetricReader):
    """Adds the points of our own instruments to what the SDK collected."""

    def __init__(
        self,
        exporter: MetricExporter,
        *args: Any,
        histograms: Sequence[TaskHistogram],
        gauges: Sequence[CurrentGauge] = (),
        marks: Checkpoints | None = None,
        **kwargs: Any,
    ) -> None:
        self._task_histograms = histograms
        self._gauges = gauges
        self._marks = marks
        # With marks, what was collected first is sent first: the newest counts arrive last.
        self._in_order = Lock()
        marked = exporter if marks is None else CheckpointedExporter(exporter, marks)
        super().__init__(marked, *args, **kwargs)

    def collect(self, timeout_millis: float = 10_000) -> None:  # type: ignore[misc]
        """Collect between two records, then export."""
        if self._marks is None:
            super().collect(timeout_millis)
            return
        with self._in_order, self._marks.applying:
            super().collect(timeout_millis)

    def _receive_metrics(self, metrics_data: MetricsData, *args: Any, **kwargs: Any) -> None:
        ours: tuple[TaskHistogram | CurrentGauge, ...] = (*self._task_histograms, *self._gauges)
        metrics = [metric for instrument in ours if (metric := instrument.collect())]
        data = _with_metrics(metrics_data, metrics)
        if self._marks is None:
            super()._receive_metrics(data, *args, **kwargs)
            return
        marked = CheckpointedMetrics(data.resource_metrics, self._marks.mark())
        # An endpoint may hang, and records come in meanwhile.
        self._marks.applying.release()
        try:
            super()._receive_metrics(marked, *args, **kwargs)
        finally:
            self._marks.applying.acquire()


def _with_metrics(data: MetricsData, metrics: Sequence[Metric]) -> MetricsData:
    """The data with `metrics` in its first scope, which is ours: nobody else uses the provider."""
    if not metrics or not data.resource_metrics:
        return data
    resource = data.resource_metrics[0]
    scope = resource.scope_metrics[0]
    scope = dataclasses.replace(scope, metrics=[*scope.metrics, *metrics])
    resource = dataclasses.replace(resource, scope_metrics=[scope, *resource.scope_metrics[1:]])
    return dataclasses.replace(data, resource_metrics=[resource, *data.resource_metrics[1:]])
