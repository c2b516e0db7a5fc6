"""Which metrics an endpoint has acknowledged: a checkpoint in the records for each collection.

A collection carries its checkpoint: the position up to which records had been applied. When an
endpoint acknowledges the export, the journal discards the records before that position; a reporter
that is started again applies the rest once more. For this to be exact

- nothing is collected while a record is applied (`Checkpoints.applying`), and
- collections are exported in the order in which they were made.

One case counts twice: an export was acknowledged, and the reporter was killed before it noted that.

`TaskHistogramReader` also adds the points of our own instruments to those of the SDK.
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
    """The reader of records, as an exporter needs it."""

    applying: Lock
    """Held while records are applied."""

    def position(self) -> int:
        """Position in the stream of records, in bytes, up to which all have been applied."""

    def acknowledge(self, position: int) -> None:
        """An endpoint has the metrics of all records up to this position."""


@dataclass(frozen=True)
class CheckpointedMetrics(MetricsData):
    """A collection of metrics and its checkpoint: a position in the stream of records."""

    position: int = 0


class CheckpointedExporter(MetricExporter):
    """Wraps an exporter and acknowledges the records of each collection that was exported."""

    def __init__(self, exporter: MetricExporter, checkpoints: Checkpoints) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._checkpoints = checkpoints

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Calls the wrapped exporter."""
        result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
        if result is MetricExportResult.SUCCESS and isinstance(metrics_data, CheckpointedMetrics):
            self._checkpoints.acknowledge(metrics_data.position)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Calls the wrapped exporter."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Calls the wrapped exporter."""
        self._exporter.shutdown(timeout_millis, **kwargs)


class TaskHistogramReader(PeriodicExportingMetricReader):
    """Adds the points of our own instruments to what the SDK collected."""

    def __init__(
        self,
        exporter: MetricExporter,
        *args: Any,
        histograms: Sequence[TaskHistogram],
        gauges: Sequence[CurrentGauge] = (),
        checkpoints: Checkpoints | None = None,
        **kwargs: Any,
    ) -> None:
        self._task_histograms = histograms
        self._gauges = gauges
        self._checkpoints = checkpoints
        # With checkpoints, collections are exported in order: the newest counts arrive last.
        self._in_order = Lock()
        if checkpoints is not None:
            exporter = CheckpointedExporter(exporter, checkpoints)
        super().__init__(exporter, *args, **kwargs)

    def collect(self, timeout_millis: float = 10_000) -> None:  # type: ignore[misc]
        """Collects between two records, then exports."""
        if self._checkpoints is None:
            super().collect(timeout_millis)
            return
        with self._in_order, self._checkpoints.applying:
            super().collect(timeout_millis)

    def _receive_metrics(self, metrics_data: MetricsData, *args: Any, **kwargs: Any) -> None:
        ours: tuple[TaskHistogram | CurrentGauge, ...] = (*self._task_histograms, *self._gauges)
        metrics = [metric for instrument in ours if (metric := instrument.collect())]
        data = _with_metrics(metrics_data, metrics)
        if self._checkpoints is None:
            super()._receive_metrics(data, *args, **kwargs)
            return
        checkpointed = CheckpointedMetrics(data.resource_metrics, self._checkpoints.position())
        # The endpoint may hang. Records must be applied meanwhile.
        self._checkpoints.applying.release()
        try:
            super()._receive_metrics(checkpointed, *args, **kwargs)
        finally:
            self._checkpoints.applying.acquire()


def _with_metrics(data: MetricsData, metrics: Sequence[Metric]) -> MetricsData:
    """The data with `metrics` added to its first scope: we alone use the provider."""
    if not metrics or not data.resource_metrics:
        return data
    resource = data.resource_metrics[0]
    scope = resource.scope_metrics[0]
    scope = dataclasses.replace(scope, metrics=[*scope.metrics, *metrics])
    resource = dataclasses.replace(resource, scope_metrics=[scope, *resource.scope_metrics[1:]])
    return dataclasses.replace(data, resource_metrics=[resource, *data.resource_metrics[1:]])
