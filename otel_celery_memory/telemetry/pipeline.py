"""SDK providers of our own, as OpenTelemetry's standard variables or its file of configuration say.

The reporter always has them; delivery in process has them if the caller and the process have no
providers. Exports can be triggered from a thread, so that no caller waits for an endpoint.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any

from opentelemetry._logs import Logger
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.sdk.resources import Resource

from otel_celery_memory import conventions as c
from otel_celery_memory.config_file import ConfigFileError, config_file
from otel_celery_memory.destination import LOGS, METRICS, read_destination, warnings_of
from otel_celery_memory.telemetry.declared import from_file
from otel_celery_memory.telemetry.export_checkpoints import Checkpoints
from otel_celery_memory.telemetry.leak_gauges import LeakGauges
from otel_celery_memory.telemetry.metrics import TaskHistogram, observe_levels
from otel_celery_memory.telemetry.providers import Parts, Providers, from_variables
from otel_celery_memory.telemetry.site_gauges import (
    REMEMBERED_MAX,
    CurrentGauge,
    Read,
    SiteGauges,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pipeline:
    """Where metrics and events go, and how to export them at once."""

    meter: Meter
    logger: Logger
    histogram: Callable[..., Histogram]
    site_gauges: SiteGauges
    leak_gauges: LeakGauges
    shutdown: Callable[[], None]
    send_events: Callable[[], None] = lambda: None
    """Exports events now; does not wait for it."""
    send_metrics: Callable[[], None] = lambda: None
    """Exports metrics now; does not wait for it."""
    checkpointed: bool = False
    """Whether acknowledged exports of metrics are followed."""
    delta: bool = False
    """Whether sums are exported as deltas."""
    resource: Resource | None = None
    """Of whom it is; ``None`` where that is the caller's."""


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
    parts = Parts(export_interval_s, events_acknowledged, checkpoints)
    providers = _providers(node_name, environ, parts)
    meters, logs = providers.meters, providers.logs
    meter = meters.get_meter(c.SCOPE, c.VERSION)

    def make_histogram(name: str, **options: Any) -> Histogram:
        if not providers.own_histograms:
            return meter.create_histogram(name, **options)
        histogram = TaskHistogram(
            name, delta=providers.delta, exemplars=providers.exemplars, **options
        )
        parts.histograms.append(histogram)
        return histogram

    def observe(reads: Mapping[c.Metric, Read]) -> None:
        if providers.own_gauges:
            parts.gauges.extend(CurrentGauge(*each) for each in reads.items())
        else:
            observe_levels(meter, reads)

    def shutdown() -> None:
        # At the same time: one endpoint that hangs must not delay the other signal.
        ends = (logs.shutdown, providers.shutdown_metrics)
        threads = [Thread(target=end, daemon=True) for end in ends]
        for thread in threads:
            start_or_run(thread)
        for thread in threads:
            if thread.ident is not None:
                thread.join()

    remembered_max = None if providers.own_gauges else REMEMBERED_MAX
    return Pipeline(
        meter,
        logs.get_logger(c.SCOPE, c.VERSION),
        make_histogram,
        SiteGauges(observe, remembered_max),
        LeakGauges(observe),
        shutdown,
        BackgroundSender(logs.force_flush).send,
        BackgroundSender(providers.flush_metrics).send,
        checkpoints is not None and providers.acknowledges,
        providers.delta,
        providers.resource,
    )


def _providers(node_name: str, environ: Mapping[str, str], parts: Parts) -> Providers:
    """Those of the file that ``OTEL_CONFIG_FILE`` names, if it can be used, or of the variables."""
    path = config_file(environ)
    if path:
        try:
            return from_file(path, node_name, parts)
        except ConfigFileError as error:
            logger.warning("otel_celery_memory: %s; the OTEL_... variables are used", error)
            for line in warnings_of([read_destination(each, environ) for each in (METRICS, LOGS)]):
                logger.warning("otel_celery_memory: %s", line)
    return from_variables(node_name, environ, parts)


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
