"""Which collections of metrics an endpoint has taken: each is marked with how far the records were.

A collection lies between two records: what it does not tell is what the records after its mark do.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData


class Marks(Protocol):
    """Who applies records."""

    applying: Lock
    """Held while records are applied."""

    def mark(self) -> int:
        """How far they have been applied."""

    def taken(self, mark: int) -> None:
        """An endpoint has what was told of all up to this mark."""


@dataclass(frozen=True)
class MarkedMetrics(MetricsData):
    """A collection, with how far the records were."""

    mark: int = 0


class MarkedExporter(MetricExporter):
    """An exporter before another one; tells of each collection that was taken."""

    def __init__(self, exporter: MetricExporter, marks: Marks) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._marks = marks

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """As the other exporter does."""
        result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
        if result is MetricExportResult.SUCCESS and isinstance(metrics_data, MarkedMetrics):
            self._marks.taken(metrics_data.mark)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """As the other exporter does."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """As the other exporter does."""
        self._exporter.shutdown(timeout_millis, **kwargs)
