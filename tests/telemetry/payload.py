"""Payloads of the SDK as plain values: everything but the times, ready to be compared whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry._logs import Logger
from opentelemetry.metrics import Histogram
from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import format_span_id, format_trace_id

from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry.export_checkpoints import TaskHistogramReader
from otel_celery_memory.telemetry.leak_gauges import LeakGauges
from otel_celery_memory.telemetry.metrics import TaskHistogram, observe_levels
from otel_celery_memory.telemetry.site_gauges import (
    REMEMBERED_MAX,
    CurrentGauge,
    Read,
    SiteGauges,
)

Plain = dict[str, Any]


class MemoryExporter(MetricExporter):
    """Keeps what it is given."""

    def __init__(self, temporality: dict[type, AggregationTemporality] | None = None) -> None:
        super().__init__(preferred_temporality=temporality)
        self.exported: list[MetricsData] = []

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any
    ) -> MetricExportResult:
        self.exported.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing waits here."""


@dataclass(frozen=True)
class Telemetry:
    """An SDK in memory: what to feed, and what came out."""

    meters: MeterProvider
    logger: Logger
    histogram: Callable[..., Histogram]
    site_gauges: SiteGauges
    leak_gauges: LeakGauges
    exporter: MemoryExporter
    log_exporter: Any

    def metrics(self) -> dict[str, Plain]:
        """Every metric that is collected now, by its name."""
        self.meters.force_flush()
        return metrics_payload(self.exporter.exported[-1])

    def events(self) -> list[Plain]:
        """Every event so far."""
        return [event_payload(each.log_record) for each in self.log_exporter.get_finished_logs()]


def in_memory(*, own_histograms: bool) -> Telemetry:
    """The SDK in memory, with its own histograms and gauges of sites or with ours."""
    exporter = MemoryExporter()
    histograms: list[TaskHistogram] = []
    gauges: list[CurrentGauge] = []
    reader = TaskHistogramReader(
        exporter, export_interval_millis=math.inf, histograms=histograms, gauges=gauges
    )
    resource = Resource({"service.name": "shop"})
    meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    meter = meters.get_meter(c.SCOPE, "1")

    def ours(name: str, **options: Any) -> Histogram:
        histograms.append(TaskHistogram(name, **options))
        return histograms[-1]

    def observe(reads: Mapping[c.Metric, Read]) -> None:
        if own_histograms:
            gauges.extend(CurrentGauge(metric, read) for metric, read in reads.items())
        else:
            observe_levels(meter, reads)

    # Renamed in 1.39.
    name = "InMemoryLogRecordExporter"
    log_exporter = (getattr(logs_export, name, None) or logs_export.InMemoryLogExporter)()
    logs = sdk_logs.LoggerProvider(resource, shutdown_on_exit=False)
    logs.add_log_record_processor(logs_export.SimpleLogRecordProcessor(log_exporter))
    return Telemetry(
        meters,
        logs.get_logger(c.SCOPE, "1"),
        ours if own_histograms else meter.create_histogram,
        SiteGauges(observe, None if own_histograms else REMEMBERED_MAX),
        LeakGauges(observe),
        exporter,
        log_exporter,
    )


def metrics_of(data: MetricsData) -> list[Metric]:
    """All metrics of a payload, which has one resource and one scope."""
    ((scope,),) = (resource.scope_metrics for resource in data.resource_metrics)
    return list(scope.metrics)


def metrics_payload(data: MetricsData) -> dict[str, Plain]:
    """Every metric by its name; a name that comes twice is an error."""
    metrics = metrics_of(data)
    assert len({metric.name for metric in metrics}) == len(metrics)
    return {metric.name: metric_payload(metric) for metric in metrics}


def metric_payload(metric: Metric, *, ordered: bool = True) -> Plain:
    """One metric: its unit, its kind and its points, in the order of their attributes."""
    data: Any = metric.data
    if isinstance(data, HistogramData):
        kind = "histogram"
    else:
        kind = "counter" if getattr(data, "is_monotonic", False) else "up-down counter"
    temporality = getattr(data, "aggregation_temporality", None)  # a gauge has none
    points = [point_payload(point) for point in data.data_points]
    if ordered:
        points.sort(key=lambda point: sorted(map(str, point["attributes"].items())))
    return {
        "unit": metric.unit,
        "kind": "gauge" if temporality is None else f"{temporality.name.lower()} {kind}",
        "points": points,
    }


def point_payload(point: HistogramDataPoint | NumberDataPoint) -> Plain:
    """One point without its times; of a histogram only the buckets that hold something."""
    attributes = dict(point.attributes or {})
    if isinstance(point, NumberDataPoint):
        return {"attributes": attributes, "value": point.value}
    bounds = [*point.explicit_bounds, math.inf]
    assert len(bounds) == len(point.bucket_counts)
    return {
        "attributes": attributes,
        "count": point.count,
        "sum": point.sum,
        "min": point.min,
        "max": point.max,
        "buckets": {
            bound: count for bound, count in zip(bounds, point.bucket_counts, strict=True) if count
        },
        "exemplars": [
            (
                exemplar.value,
                format_trace_id(exemplar.trace_id or 0),
                format_span_id(exemplar.span_id or 0),
                dict(exemplar.filtered_attributes or {}),
            )
            for exemplar in point.exemplars
        ],
    }


def event_payload(record: Any) -> Plain:
    """One log record, with the times that we set."""
    return {
        "name": record.event_name,
        "severity": (record.severity_text, record.severity_number.value),
        "body": record.body,
        "time_ns": (record.timestamp, record.observed_timestamp),
        "attributes": dict(record.attributes),
        "span": (record.trace_id or 0, record.span_id or 0),
    }


def points(*values: tuple[Plain, int | float]) -> list[Plain]:
    """Points of a sum, as `point_payload` makes them."""
    return [{"attributes": attributes, "value": value} for attributes, value in values]


def distribution(
    attributes: Plain,
    values: Sequence[float],
    *,
    bounds: Sequence[float] = c.BUCKET_BOUNDS_BYTES,
    **exemplar: Any,
) -> Plain:
    """A point of a histogram of these values, as `point_payload` makes it."""
    bounds = [*bounds, math.inf]
    buckets: dict[float, int] = {}
    for value in sorted(values):
        bound = next(bound for bound in bounds if value <= bound)
        buckets[bound] = buckets.get(bound, 0) + 1
    return {
        "attributes": attributes,
        "count": len(values),
        "sum": sum(values),
        "min": min(values),
        "max": max(values),
        "buckets": buckets,
        "exemplars": exemplar.get("exemplars", []),
    }
