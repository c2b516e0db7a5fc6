"""SDK providers of our own, configured by OpenTelemetry's standard variables.

The reporter always has them; delivery in process has them if the caller and the process have no
providers. Exports can be triggered from a thread, so that no caller waits for an endpoint.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any

from opentelemetry._logs import Logger
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk._logs import export as sdk_logs_export
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.resources import Resource

from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry.export_checkpoints import Checkpoints, TaskHistogramReader
from otel_celery_memory.telemetry.metrics import (
    TaskHistogram,
    exemplar_filter,
    wants_delta,
    wants_sdk_histogram,
)
from otel_celery_memory.telemetry.retry_queue import RetryQueue
from otel_celery_memory.telemetry.site_gauges import CurrentGauge, SiteGauges

logger = logging.getLogger(__name__)

_GRPC, _HTTP = "grpc", "http/protobuf"
_OTLP_EXPORTERS = {
    "METRICS": ("metric_exporter", "OTLPMetricExporter"),
    "LOGS": ("_log_exporter", "OTLPLogExporter"),
}


@dataclass(frozen=True)
class Pipeline:
    """Where metrics and events go, and how to export them at once."""

    meter: Meter
    logger: Logger
    histogram: Callable[..., Histogram]
    site_gauges: SiteGauges
    shutdown: Callable[[], None]
    send_events: Callable[[], None] = lambda: None
    """Exports events now; does not wait for it."""
    send_metrics: Callable[[], None] = lambda: None
    """Exports metrics now; does not wait for it."""
    checkpointed: bool = False
    """Whether acknowledged exports of metrics are followed."""


def open_pipeline(
    node_name: str,
    export_interval_s: float,
    environ: Mapping[str, str] = os.environ,
    events_acknowledged: Callable[[Sequence[Any]], None] = lambda events: None,
    checkpoints: Checkpoints | None = None,
) -> Pipeline:
    """Providers, exporters and the threads that drive them; nothing raises for a dead endpoint.

    ``events_acknowledged`` is called with the log records that an endpoint acknowledged,
    ``checkpoints`` with how far the acknowledged metrics were: only where there is one exporter.
    """
    resource = worker_resource(node_name, environ)
    histograms: list[TaskHistogram] = []
    gauges: list[CurrentGauge] = []
    exporters = _exporters("METRICS", ConsoleMetricExporter, environ)
    readers = [
        TaskHistogramReader(
            exporter,
            export_interval_millis=export_interval_s * 1000,
            histograms=histograms,
            gauges=gauges,
            checkpoints=checkpoints if len(exporters) == 1 else None,
        )
        for exporter in exporters
    ]
    meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    logs = sdk_logs.LoggerProvider(resource, shutdown_on_exit=False)
    for exporter in _exporters("LOGS", _console_log_exporter, environ):
        kept: Any = RetryQueue(exporter, events_acknowledged)
        logs.add_log_record_processor(sdk_logs_export.BatchLogRecordProcessor(kept))
    meter = meters.get_meter(c.SCOPE, c.VERSION)

    def make_histogram(name: str, **options: Any) -> Histogram:
        # With two readers a delta that one collects is gone for the other.
        if len(readers) != 1 or wants_sdk_histogram(environ):
            return meter.create_histogram(name, **options)
        histogram = TaskHistogram(
            name, delta=wants_delta(environ), exemplars=exemplar_filter(environ), **options
        )
        histograms.append(histogram)
        return histogram

    def shutdown() -> None:
        # At the same time: one endpoint that hangs must not delay the other signal.
        threads = [Thread(target=provider.shutdown, daemon=True) for provider in (logs, meters)]
        for thread in threads:
            start_or_run(thread)
        for thread in threads:
            if thread.ident is not None:
                thread.join()

    return Pipeline(
        meter,
        logs.get_logger(c.SCOPE, c.VERSION),
        make_histogram,
        SiteGauges(lambda reads: gauges.extend(CurrentGauge(*each) for each in reads.items())),
        shutdown,
        BackgroundSender(logs.force_flush).send,
        BackgroundSender(meters.force_flush).send,
        checkpoints is not None and len(exporters) == 1,
    )


def start_or_run(thread: Thread) -> None:
    """Starts a thread; does its work here if no thread can be started."""
    try:
        thread.start()
    except RuntimeError:
        thread.run()


def run_bounded(function: Callable[[], object], timeout_s: float) -> bool:
    """Runs a function that may hang; returns whether it ended within the time."""
    thread = Thread(target=function, daemon=True)
    start_or_run(thread)
    if thread.ident is not None:
        thread.join(timeout_s)
    return not thread.is_alive()


def worker_resource(node_name: str, environ: Mapping[str, str]) -> Resource:
    """The user's resource; ``service.instance.id`` is the worker's node name.

    The name stays the same after a restart, and two workers of a host have different ones: each
    stream has one writer, and a new pid makes no new series. An id that the user sets is kept.
    """
    ours = {"host.name": socket.gethostname(), "service.instance.id": node_name}
    given = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = {part.partition("=")[0].strip() for part in given.split(",")}
    return Resource.create({key: value for key, value in ours.items() if key not in named})


def _exporters(signal: str, console: Callable[[], Any], environ: Mapping[str, str]) -> list[Any]:
    """The exporters that the user wants for ``METRICS`` or ``LOGS``."""
    return [
        console() if kind == "console" else _otlp_exporter(signal, environ)
        for kind in _kinds(f"OTEL_{signal}_EXPORTER", environ)
    ]


def _otlp_exporter(signal: str, environ: Mapping[str, str]) -> Any:
    package = "grpc" if _protocol(signal, environ) == _GRPC else "http"
    module, name = _OTLP_EXPORTERS[signal]
    # Imports only what is used: gRPC takes 20 MiB.
    found = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}")
    return getattr(found, name)()


def _console_log_exporter() -> Any:
    # Renamed in 1.39.
    name = "ConsoleLogRecordExporter"
    return (getattr(sdk_logs_export, name, None) or sdk_logs_export.ConsoleLogExporter)()


def _kinds(variable: str, environ: Mapping[str, str]) -> list[str]:
    """The exporters that a variable names; unknown ones are logged and ignored."""
    kinds = [part.strip().lower() for part in environ.get(variable, "").split(",") if part.strip()]
    known = [kind for kind in kinds if kind in ("otlp", "console", "none")]
    for kind in kinds:
        if kind not in known:
            logger.warning("%s=%s is not otlp, console or none: ignored", variable, kind)
    if "none" in known:
        return []
    if kinds and not known:
        logger.warning("%s names no known exporter: otlp is used", variable)
    return known or ["otlp"]


def _protocol(signal: str, environ: Mapping[str, str]) -> str:
    """The OTLP protocol: HTTP by default, as gRPC takes more memory and does not survive a fork."""
    general = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip()
    wanted = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "").strip() or general
    if wanted and wanted not in (_GRPC, _HTTP):
        logger.warning("OTLP protocol %r is not %s or %s: %s is used", wanted, _GRPC, _HTTP, _HTTP)
    return _GRPC if wanted == _GRPC else _HTTP


class BackgroundSender:
    """Runs a function that may hang in a thread, one run at a time.

    A request during a run starts another run afterwards: the first may have read older data.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._wanted = Event()
        self._running = Lock()

    def send(self) -> None:
        """Starts a run and returns at once. Raises `RuntimeError` if no thread can be started."""
        self._wanted.set()
        if not self._running.locked():
            Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while self._wanted.is_set():
            if not self._running.acquire(blocking=False):
                return
            try:
                self._wanted.clear()
                self._function()
            finally:
                self._running.release()
