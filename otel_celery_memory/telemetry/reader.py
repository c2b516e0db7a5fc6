"""The SDK's reader, which sends our histograms too and collects between two records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from threading import Lock
from typing import Any

from opentelemetry.sdk.metrics.export import (
    Metric,
    MetricExporter,
    MetricsData,
    PeriodicExportingMetricReader,
)

from otel_celery_memory.telemetry.export_checkpoints import MarkedExporter, MarkedMetrics, Marks
from otel_celery_memory.telemetry.histogram import TaskHistogram


class TaskHistogramReader(PeriodicExportingMetricReader):
    """Adds the points of `TaskHistogram` instruments to what the SDK collected."""

    def __init__(
        self,
        exporter: MetricExporter,
        *args: Any,
        histograms: Sequence[TaskHistogram],
        marks: Marks | None = None,
        **kwargs: Any,
    ) -> None:
        self._task_histograms = histograms
        self._marks = marks
        # With marks, what was collected first is sent first: the newest counts arrive last.
        self._in_order = Lock()
        marked = exporter if marks is None else MarkedExporter(exporter, marks)
        super().__init__(marked, *args, **kwargs)

    def collect(self, timeout_millis: float = 10_000) -> None:  # type: ignore[misc]
        """Collect between two records, then export."""
        if self._marks is None:
            super().collect(timeout_millis)
            return
        with self._in_order, self._marks.applying:
            super().collect(timeout_millis)

    def _receive_metrics(self, metrics_data: MetricsData, *args: Any, **kwargs: Any) -> None:
        metrics = [metric for histogram in self._task_histograms if (metric := histogram.collect())]
        data = _with_metrics(metrics_data, metrics)
        if self._marks is None:
            super()._receive_metrics(data, *args, **kwargs)
            return
        marked = MarkedMetrics(data.resource_metrics, self._marks.mark())
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
