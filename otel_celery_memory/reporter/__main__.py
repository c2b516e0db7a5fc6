"""The entry point of the reporter, which the worker starts.

Descriptors and names come from the command line, settings from the environment.
"""

from __future__ import annotations

import signal

# A terminal or a service manager sends these to the whole group. The reporter ends after the
# worker. Ignored before the imports, which take a good part of a second.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_IGN)

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from selectors import DefaultSelector
from typing import Any

from otel_celery_memory.circuit_breaker import CircuitBreaker
from otel_celery_memory.ipc.control_page import NO_DROPS, ControlPage
from otel_celery_memory.ipc.journal import Journal
from otel_celery_memory.ipc.records import WAKE_SIGNAL, slot_name
from otel_celery_memory.ipc.ring import RingMemory
from otel_celery_memory.ipc.shared_memory import SpawnDirectory
from otel_celery_memory.ipc.status_page import EVIDENCE, StatusPage
from otel_celery_memory.probes.limits import find_cgroup, identity, oom_kill_counter, read_limits
from otel_celery_memory.probes.procfs import read_start_ticks
from otel_celery_memory.reporter.capture_assembly import CaptureAssembly, saver
from otel_celery_memory.reporter.descendants import Descendants
from otel_celery_memory.reporter.emitter import Emitter
from otel_celery_memory.reporter.gauges import ReporterContext, TracingShare
from otel_celery_memory.reporter.last_state import LastState, LastStateFile, NoLastState
from otel_celery_memory.reporter.leak_watch import LeakWatch, Pace
from otel_celery_memory.reporter.limits import LimitUsage, LimitWatcher
from otel_celery_memory.reporter.losses import Losses
from otel_celery_memory.reporter.process_watcher import ProcessReadings, ProcessWatcher
from otel_celery_memory.reporter.service import (
    INDISPENSABLE,
    RecordReader,
    ReporterService,
    set_up_logging,
)
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.state.exits import OomKills
from otel_celery_memory.reporter.state.totals import TaskTotals
from otel_celery_memory.reporter.state.worker_state import InFlightTasks, WorkerState
from otel_celery_memory.reporter.symbolizer import Symbolizer
from otel_celery_memory.reporter.view import Inspector
from otel_celery_memory.settings import Settings
from otel_celery_memory.telemetry.pipeline import Pipeline, open_pipeline, run_bounded
from otel_celery_memory.telemetry.retry_queue import lost_pids

logger = logging.getLogger(__name__)

FLUSH_TIMEOUT_S = 5.0
"""Shorter than the worker waits for its reporter."""


def main(argv: list[str]) -> None:
    """Runs until the worker has ended, then flushes within a bounded time and exits."""
    options = _parse(argv)
    set_up_logging(options.log_file)
    settings = Settings.load({}, os.environ, strict=False)
    state = WorkerState(OomKills(options.oom_kills))
    page = ControlPage(options.page)
    record_reader = RecordReader(
        page.rings_used, RingMemory(options.rings).map_ring, Journal(options.journal)
    )

    def pids() -> dict[str, int]:
        found = {
            slot_name(process.slot): pid
            for pid, process in list(state.processes.items())
            if process.slot is not None
        }
        return {**found, "main": options.main_pid, "reporter": os.getpid()}

    describe = Symbolizer().describe
    tracing = TracingShare(page.totals, from_zero=not options.restarts)

    def send_now() -> None:
        pipeline.send_events()
        pipeline.send_metrics()

    breaker = CircuitBreaker(INDISPENSABLE)

    def acknowledge_lost(events: Sequence[Any]) -> None:
        for pid in lost_pids(events):
            page.acknowledged_exits.add(pid)

    pipeline = open_pipeline(
        options.worker, settings.export_interval, os.environ, acknowledge_lost, record_reader
    )
    # Drops that earlier reporters exported: a cumulative sum goes on where it was, so Prometheus
    # sees no gap; a delta is exported once.
    again = pipeline.delta and options.restarts
    drops_before = page.drop_counters.counts() if again else NO_DROPS
    max_memory_bytes = options.max_memory_kib * 1024 or None
    limit_usage = LimitUsage(os.getpid(), max_memory_bytes)
    tasks = TaskTotals(0.0 if options.restarts else settings.warm_up)
    readings = ProcessReadings(pids)
    emitter = Emitter(
        pipeline.meter,
        pipeline.logger,
        pipeline.histogram,
        pipeline.site_gauges,
        pipeline.leak_gauges,
        state,
        tasks,
        SiteTotals(
            describe, settings.sites_top, tasks.kept, lambda: tasks.warms_up(time.time_ns())
        ),
        CaptureAssembly(
            options.worker,
            settings.frames,
            describe,
            saver(settings.capture_directory, settings.profile_endpoint, pipeline.resource),
        ),
        ReporterContext(
            processes=readings.read,
            limits=lambda: read_limits(options.main_pid),
            limits_used=lambda: limit_usage.latest,
            max_memory_per_child_bytes=max_memory_bytes,
            frames_dropped=lambda: page.drop_counters.counts().since(drops_before),
            reporter_restarts=1 if again else options.restarts,
            tracing_share=tracing.share,
            switched_off=breaker.switched_off,
            descendants=lambda: descendants.sizes,
            descendants_left=lambda: descendants.left_bytes,
            process_started=readings.started,
        ),
        page.acknowledged_exits.add,
    )
    descendants = Descendants(emitter, options.main_pid)
    selector = DefaultSelector()
    oom_kills = oom_kill_counter(os.getpid())
    last_state = _last_state(options, settings, state, emitter.losses)
    watch = ProcessWatcher(selector)
    status = StatusPage(options.status)
    inspector = Inspector(emitter, page, settings.tracing, tracing.seconds, status.write)
    leak_watch = LeakWatch(emitter, inspector.sites, page.suspect.write, Pace.of(settings))
    if options.restarts and (before := status.read()):
        leak_watch.restore(before.get(EVIDENCE) or {})
    inspector.evidence = leak_watch.state
    service = ReporterService(
        record_reader,
        options.main_pid,
        emitter,
        watch,
        LimitWatcher(watch.sizes, limit_usage, emitter, send_now, last_state.save),
        inspector,
        selector,
        settings.sites_interval,
        page.drop_counters.count_damaged,
        InFlightTasks(page, emitter),
        descendants,
        leak_watch,
        oom_kills,
        pipeline.send_events,
        breaker,
        page.beat,
        _wake_fd(),
    )
    try:
        # After a restart the file is of this same worker, written by the reporter before.
        for lost, seen_ns in [] if options.restarts else last_state.recover(oom_kills()):
            emitter.emit_lost(lost, seen_ns)
        if options.restarts and pipeline.checkpointed:
            service.resume(page.acknowledged_exits.pids())
        service.run()
    finally:
        _flush(options, pipeline, last_state)


def _wake_fd() -> int:
    """What becomes readable where the main process sends `WAKE_SIGNAL`."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    signal.signal(WAKE_SIGNAL, lambda *_: None)
    return read_fd


def _last_state(
    options: argparse.Namespace, settings: Settings, state: WorkerState, losses: Losses
) -> NoLastState:
    """The last state of the worker before, and a file for this one's, if a directory is set."""
    if not settings.state_directory:
        return NoLastState()
    cgroup = find_cgroup(os.getpid())
    return LastState(
        LastStateFile(Path(settings.state_directory), options.worker),
        state,
        (options.main_pid, read_start_ticks(options.main_pid)),
        "" if cgroup is None else identity(cgroup),
        read_start_ticks,
        losses.times,
    )


def _flush(options: argparse.Namespace, pipeline: Pipeline, last_state: NoLastState) -> None:
    """Exports what is left within a bounded time, and exits."""
    if run_bounded(pipeline.shutdown, FLUSH_TIMEOUT_S):
        last_state.discard()
    else:
        logger.warning("the last telemetry could not be sent within %.0f s", FLUSH_TIMEOUT_S)
    directory = SpawnDirectory.from_environ(os.environ)
    if directory is not None and directory.main_pid == options.main_pid:
        directory.remove()  # if the main process was killed, it could not
    sys.stdout.flush()
    # Threads of exporters that still retry would keep the interpreter alive.
    os._exit(0)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="otel_celery_memory.reporter", description=__doc__)
    parser.add_argument("--worker", required=True, help="the worker's node name")
    parser.add_argument("--main-pid", type=int, required=True)
    parser.add_argument("--rings", type=int, required=True, help="descriptor of the rings")
    parser.add_argument("--page", type=int, required=True, help="descriptor of the control page")
    parser.add_argument("--status", type=int, required=True, help="descriptor of the status page")
    parser.add_argument("--journal", type=int, required=True, help="descriptor of the journal")
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--max-memory-kib", type=int, default=0)
    parser.add_argument("--log-file", default="", help="where the worker logs to")
    parser.add_argument("--oom-kills", type=int, help="OOM kills when the worker started")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
