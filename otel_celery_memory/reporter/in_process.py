"""Delivery in process: the process that runs the tasks emits its own records.

The same emitter applies the same records without rings. Used for providers that the caller passes,
for calls inside ``worker_process_init``, and where no reporter can be started.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import Any

from billiard.process import current_process
from celery.exceptions import SoftTimeLimitExceeded
from opentelemetry import _logs, metrics
from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.control_page import NO_DROPS, ControlPage
from otel_celery_memory.ipc.records import MAIN_SLOT, PartFailed, Record, slot_name, tally_text
from otel_celery_memory.probes.limits import read_limits
from otel_celery_memory.probes.native_threads import is_patched, native_thread
from otel_celery_memory.probes.procfs import ProcessReading, read_process, read_size
from otel_celery_memory.probes.urgent_signal import is_ringing
from otel_celery_memory.reporter.capture_assembly import CaptureAssembly, saver
from otel_celery_memory.reporter.emitter import Emitter
from otel_celery_memory.reporter.gauges import ReporterContext, TracingShare
from otel_celery_memory.reporter.leak_watch import LeakWatch, Pace
from otel_celery_memory.reporter.limits import LimitUsage, Usage
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.state.totals import TaskTotals
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.reporter.symbolizer import Symbolizer
from otel_celery_memory.reporter.view import Inspector
from otel_celery_memory.settings import Settings
from otel_celery_memory.telemetry.leak_gauges import LeakGauges
from otel_celery_memory.telemetry.metrics import observe_levels
from otel_celery_memory.telemetry.pipeline import Pipeline, open_pipeline, run_bounded
from otel_celery_memory.telemetry.site_gauges import REMEMBERED_MAX, SiteGauges

logger = logging.getLogger(__name__)

_WAITING_MAX = 1_000
_INSPECTION_INTERVAL_S = 1.0
FLUSH_TIMEOUT_S = 2.0
"""A child that is recycled blocks its slot while it flushes."""


def given_destination(
    meter_provider: MeterProvider | None, logger_provider: LoggerProvider | None
) -> Pipeline:
    """The caller's providers; the global ones where the caller gave none."""
    meters = meter_provider or metrics.get_meter_provider()
    logs = logger_provider or _logs.get_logger_provider()
    meter = meters.get_meter(c.SCOPE, c.VERSION)

    def flush() -> None:
        for provider in (meters, logs):
            force_flush = getattr(provider, "force_flush", None)
            if force_flush is not None:
                force_flush(int(FLUSH_TIMEOUT_S * 1000))

    # Only flushed: the caller shuts down its own providers.
    return Pipeline(
        meter,
        logs.get_logger(c.SCOPE, c.VERSION),
        meter.create_histogram,
        SiteGauges(partial(observe_levels, meter), REMEMBERED_MAX),
        LeakGauges(partial(observe_levels, meter)),
        flush,
    )


def best_destination(instance: str, export_interval_s: float) -> Pipeline:
    """The global SDK providers if there are any, else a pipeline of our own for ``instance``."""
    if _has_global_sdk():
        return given_destination(None, None)
    return open_pipeline(instance, export_interval_s)


def _has_global_sdk() -> bool:
    """Whether this process has a global provider of OpenTelemetry's SDK for metrics."""
    from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider

    return isinstance(metrics.get_meter_provider(), SdkMeterProvider)


class InProcessSink:
    """Emits records from any thread of this process; logs its first failure and switches off."""

    def __init__(
        self,
        destination: Pipeline,
        settings: Settings,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._destination = destination
        self._interval_s = settings.sites_interval
        self._clock_s = clock_s
        self._ranked_s = clock_s()
        self._lock = RLock()
        self._is_busy = False
        """Whether a record is being taken: one that is sent in the midst of that waits for it."""
        self._own_work = 0
        self._pid = os.getpid()
        self._on = True
        self._state = WorkerState()
        self.page = ControlPage()
        self._mode = settings.tracing
        describe = Symbolizer().describe
        share = TracingShare(self.page.totals)
        tasks = TaskTotals(settings.warm_up)
        self._emitter = Emitter(
            destination.meter,
            destination.logger,
            destination.histogram,
            destination.site_gauges,
            destination.leak_gauges,
            self._state,
            tasks,
            SiteTotals(
                describe, settings.sites_top, tasks.kept, lambda: tasks.warms_up(time.time_ns())
            ),
            CaptureAssembly(
                "",
                settings.frames,
                describe,
                saver(settings.capture_directory, settings.profile_endpoint, destination.resource),
            ),
            ReporterContext(
                processes=self._processes,
                limits=lambda: read_limits(os.getpid()),
                limits_used=self._limits_used,
                max_memory_per_child_bytes=None,
                frames_dropped=lambda: NO_DROPS,
                reporter_restarts=0,
                tracing_share=share.share,
            ),
        )
        self._inspector = Inspector(
            self._emitter, self.page, self._mode, share.seconds, lambda _: True
        )
        # Nobody orders a census here: a verdict names the line, and no holder.
        self._leak_watch = LeakWatch(self._emitter, self._inspector.sites, pace=Pace.of(settings))
        self._inspection_due_s = clock_s()
        # gevent's and eventlet's locks work between greenlets only: records from another kernel
        # thread wait until a greenlet sends one, too. So do those of the guard of a traced run, a
        # signal handler that may have interrupted us, or an SDK that holds a lock.
        self._thread = native_thread() if is_patched() else None
        self._waiting: deque[Record] = deque(maxlen=_WAITING_MAX)

    def send(self, record: Record) -> bool:
        """Emits a record at once, and sites if they are due: there is no thread of ours.

        Returns ``False`` once delivery is switched off.
        """
        if not self._on:
            return False
        if os.getpid() != self._pid:
            self._forked()
        if is_ringing() or (self._thread is not None and native_thread() != self._thread):
            self._waiting.append(record)
            return True
        try:
            with self._lock:
                self._waiting.append(record)
                if self._is_busy:
                    return True
                try:
                    self._is_busy = True
                    self._take_waiting()
                finally:
                    self._is_busy = False
        except SoftTimeLimitExceeded:
            raise  # the task's soft time limit was raised while this ran
        except Exception:
            self._on = False
            logger.exception("otel_celery_memory: in-process delivery failed and is switched off")
            self._state.apply(PartFailed(self._pid, time.time_ns(), MAIN_SLOT, "delivery"))
        return self._on

    def _apply_waiting(self) -> None:
        while self._waiting:
            record = self._waiting.popleft()
            self._emitter.apply(record)
            self._leak_watch.apply(record)

    def _take_waiting(self) -> None:
        self._apply_waiting()
        now_s = self._clock_s()
        if now_s >= self._inspection_due_s:
            self._own_work += 1
            self._inspection_due_s = now_s + _INSPECTION_INTERVAL_S
            self._leak_watch.tick()
            self._inspector.tick()
        if now_s - self._ranked_s >= self._interval_s:
            self._own_work += 1
            self._emitter.emit_sites(now_s - self._ranked_s, time.time_ns())
            self._ranked_s = now_s
            self._inspector.ranked()

    def own_work(self) -> int:
        """How often this has done more than to take a record, in whichever run came first."""
        return self._own_work

    def view(self) -> dict[str, Any]:
        """The view of this process, for ``inspect memory``."""
        with self._lock:
            self._own_work += 1
            self._inspector.tick()
            return self._inspector.view(self.page.commands().mode or self._mode)

    def end(self) -> None:
        """The process ends: exports what was measured, within a bounded time."""
        if not self._on or os.getpid() != self._pid:
            return
        self._on = False
        now_ns = time.time_ns()
        with self._lock:
            self._apply_waiting()
            self._state.gone(self._pid, now_ns)
            for end in self._state.classify_ended(now_ns, all_now=True):
                self._emitter.ended(end)
            self._inspector.finish()
            self._emitter.emit_sites(max(self._clock_s() - self._ranked_s, 0.001), now_ns)
            measured = self._emitter.runs_measured()
        run_bounded(self._destination.shutdown, FLUSH_TIMEOUT_S)
        # Children of a pool come and go: a line of each would be many.
        if current_process().name == "MainProcess":
            logger.info("%s", tally_text(measured, 0))

    def _forked(self) -> None:
        self._pid = os.getpid()
        self._lock, self._is_busy = RLock(), False
        self._ranked_s = self._clock_s()
        if self._thread is not None:
            self._thread = native_thread()
        self._waiting.clear()  # the parent's, which takes them itself
        self._emitter.reset()
        self._leak_watch.clear()

    def _processes(self) -> dict[str, ProcessReading]:
        pid = os.getpid()
        process = self._state.processes.get(pid)
        # Without a state the process has ended; its last counts are still exported.
        reading = None if process is None else read_process(pid)
        return {} if process is None or reading is None else {slot_name(process.slot): reading}

    def _limits_used(self) -> list[Usage]:
        pid = os.getpid()
        size = read_size(pid)
        return LimitUsage(pid, None).usages({} if size is None else {pid: size}, {})
