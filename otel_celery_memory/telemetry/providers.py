"""SDK providers of our own, and what their readers and processors are made with.

`from_variables` makes them of OpenTelemetry's standard variables; `declared` of a file.
"""

from __future__ import annotations

import importlib
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk._logs import export as sdk_logs_export
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

from otel_celery_memory.destination import (
    CONSOLE,
    ENTRY_POINTS,
    GRPC,
    HTTP,
    LOGS,
    METRICS,
    OTLP,
    Destination,
    read_destination,
)
from otel_celery_memory.telemetry.console import ConsoleEvents, ConsoleMetrics
from otel_celery_memory.telemetry.export_checkpoints import Checkpoints, TaskHistogramReader
from otel_celery_memory.telemetry.metrics import TaskHistogram, exemplar_filter
from otel_celery_memory.telemetry.retry_queue import RetryQueue
from otel_celery_memory.telemetry.site_gauges import CurrentGauge

logger = logging.getLogger(__name__)

_OTLP_EXPORTERS = {
    METRICS: ("metric_exporter", "OTLPMetricExporter"),
    LOGS: ("_log_exporter", "OTLPLogExporter"),
}


@dataclass(frozen=True)
class Parts:
    """What our readers and processors share; instruments of our own are added to the lists."""

    export_interval_s: float
    events_acknowledged: Callable[[Sequence[Any]], None]
    checkpoints: Checkpoints | None
    histograms: list[TaskHistogram] = field(default_factory=list)
    gauges: list[CurrentGauge] = field(default_factory=list)

    def reader(
        self,
        exporter: Any,
        acknowledges: bool,
        interval_ms: float | None = None,
        timeout_ms: float | None = None,
        **options: Any,
    ) -> TaskHistogramReader:
        """A reader that pushes; ``acknowledges`` if its exporter is the only one."""
        return TaskHistogramReader(
            exporter,
            export_interval_millis=interval_ms or self.export_interval_s * 1000,
            export_timeout_millis=timeout_ms,
            histograms=self.histograms,
            gauges=self.gauges,
            checkpoints=self.checkpoints if acknowledges else None,
            **options,
        )

    def processor(self, exporter: Any, **options: Any) -> sdk_logs_export.BatchLogRecordProcessor:
        """A processor that keeps events until they are acknowledged."""
        kept: Any = RetryQueue(exporter, self.events_acknowledged)
        return sdk_logs_export.BatchLogRecordProcessor(kept, **options)


@dataclass(frozen=True)
class Providers:
    """Providers for metrics and events, and what goes with their readers."""

    meters: MeterProvider
    logs: sdk_logs.LoggerProvider
    flush_metrics: Callable[[], object]
    shutdown_metrics: Callable[[], object]
    acknowledges: bool
    """Whether what the one exporter of metrics has acknowledged is followed."""
    own_histograms: bool
    """Whether a `TaskHistogram` says all that the user wants of a histogram."""
    own_gauges: bool
    """Whether our readers collect levels themselves, so that what is gone is not collected."""
    delta: bool
    """Whether histograms and counters are exported as deltas."""
    exemplars: str
    resource: Resource


def from_variables(node_name: str, environ: Mapping[str, str], parts: Parts) -> Providers:
    """The providers that OpenTelemetry's standard variables ask for."""
    resource = worker_resource(node_name, environ)
    exporters = _exporters(METRICS, ConsoleMetrics, environ)
    # One that others read from, as Prometheus does, is a reader itself and acknowledges nothing.
    pushes = not any(isinstance(exporter, MetricReader) for exporter in exporters)
    acknowledges = pushes and len(exporters) == 1
    meters = MeterProvider(
        [
            exporter if isinstance(exporter, MetricReader) else parts.reader(exporter, acknowledges)
            for exporter in exporters
        ],
        resource=resource,
        shutdown_on_exit=False,
    )
    logs = sdk_logs.LoggerProvider(resource, shutdown_on_exit=False)
    for exporter in _exporters(LOGS, ConsoleEvents, environ):
        logs.add_log_record_processor(parts.processor(exporter))
    return Providers(
        meters,
        logs,
        meters.force_flush,
        meters.shutdown,
        acknowledges,
        # With two readers a delta that one collects is gone for the other.
        acknowledges and not any(map(wants_exponential, exporters)),
        pushes,
        any(map(wants_delta, exporters)),
        exemplar_filter(environ),
        resource,
    )


def wants_delta(exporter: Any) -> bool:
    """Whether an exporter wants histograms as deltas."""
    preferred = getattr(exporter, "_preferred_temporality", None) or {}
    return preferred.get(Histogram) is AggregationTemporality.DELTA


def wants_exponential(exporter: Any) -> bool:
    """Whether an exporter wants exponential histograms, which only the SDK's instrument has."""
    preferred = getattr(exporter, "_preferred_aggregation", None) or {}
    return isinstance(preferred.get(Histogram), ExponentialBucketHistogramAggregation)


def worker_resource(node_name: str, environ: Mapping[str, str]) -> Resource:
    """The user's resource; ``service.instance.id`` is the worker's node name.

    The name stays the same after a restart, and two workers of a host have different ones: each
    stream has one writer, and a new pid makes no new series. An id that the user sets is kept.
    """
    given = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = (part.partition("=")[0].strip() for part in given.split(","))
    return Resource.create(own_attributes(node_name, named))


def own_attributes(node_name: str, named: Iterable[str]) -> dict[str, Any]:
    """Our attributes of a resource, less those that the user ``named``."""
    ours = {"host.name": socket.gethostname(), "service.instance.id": node_name}
    kept = {*named}
    return {key: value for key, value in ours.items() if key not in kept}


def _exporters(signal: str, console: Callable[[], Any], environ: Mapping[str, str]) -> list[Any]:
    """The exporters that the user wants for ``METRICS`` or ``LOGS``."""
    # What the variables ask for in vain is said once, by the worker.
    destination = read_destination(signal, environ)
    made = (_exporter(name, destination, console) for name in destination.exporters)
    return [exporter for exporter in made if exporter is not None]


def _exporter(name: str, destination: Destination, console: Callable[[], Any]) -> Any:
    """The exporter of this name; ``None`` if it cannot be made, which is logged."""
    if name == CONSOLE:
        return console()
    try:
        if name == OTLP:
            return _otlp_exporter(destination)
        return _installed_exporter(destination.signal, name)
    except Exception as error:
        # Somebody else's: a port is taken, a file of certificates is not there.
        logger.warning(
            "otel_celery_memory: the exporter %s of OTEL_%s_EXPORTER cannot be used: %s: %s",
            *(name, destination.signal, type(error).__name__, error),
        )
        return None


def _otlp_exporter(destination: Destination) -> Any:
    if destination.protocol not in (GRPC, HTTP):
        return _installed_exporter(destination.signal, ENTRY_POINTS[destination.protocol])
    package = "grpc" if destination.protocol == GRPC else "http"
    module, name = _OTLP_EXPORTERS[destination.signal]
    # Imports only what is used: gRPC takes 20 MiB.
    found = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}")
    return getattr(found, name)()


def _installed_exporter(signal: str, name: str) -> Any:
    group = f"opentelemetry_{signal.lower()}_exporter"
    (entry, *_) = metadata.entry_points(group=group, name=name)
    return entry.load()()
