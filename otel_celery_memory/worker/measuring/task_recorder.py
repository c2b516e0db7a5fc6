"""One process's recorder: turns the starts and ends of its tasks into records.

The order inside a task: measure first at the end and last at the start, so that our own work
falls between tasks. Each part that fails is logged once and switched off; the others go on. Behind
a task now and then, a sample of the process's heap is taken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from billiard.pool import EX_RECYCLE
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.circuit_breaker import PartSwitches
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    TERMINATED,
    ExitReason,
    HeapSampled,
    PartFailed,
    ProcessDown,
    ProcessUp,
)
from otel_celery_memory.probes.allocators import read_heap
from otel_celery_memory.probes.own_memory import (
    ProcessProbe,
    open_process_probe,
)
from otel_celery_memory.probes.sites import SiteFilter, sign_generated_code
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.fast_path import FastPath, open_fast_path
from otel_celery_memory.worker.measuring.in_flight import InFlightSlot, open_in_flight_slot
from otel_celery_memory.worker.measuring.spans import ContainedSpans, TaskSpans, span_bytes
from otel_celery_memory.worker.measuring.task_measurement import TaskMeasurement
from otel_celery_memory.worker.measuring.time_limits import SoftLimit, TimeLimits
from otel_celery_memory.worker.pipe import RecordSink
from otel_celery_memory.worker.tracing.allocation_tracer import AllocationTracer

logger = logging.getLogger(__name__)

_COST_FACTOR = 200
"""Reading the heap may take at most a two-hundredth of the time between two readings."""
_TELL_INTERVAL_NS = 30 * 10**9
_REOPEN_LIMIT = 3


def exit_reason(exit_code: int, max_memory_kib: int, probe: ProcessProbe | None) -> ExitReason:
    """The reason for an exit code of billiard's; recycled for memory or for its number of tasks.

    ``max_memory_kib`` is ``worker_max_memory_per_child``, 0 for none.
    """
    if exit_code != EX_RECYCLE:
        return ExitReason.SHUTDOWN
    try:
        # The comparison that billiard made.
        if probe is not None and 0 < max_memory_kib * 1024 < probe.peak_bytes():
            return ExitReason.MAX_MEMORY
    except OSError:
        pass
    return ExitReason.MAX_TASKS


class HeapSampling:
    """Sends a sample at most every ``interval_s``, and keeps what tracing earned meanwhile."""

    def __init__(self, sink: RecordSink, interval_s: float, switches: PartSwitches) -> None:
        self._sink = sink
        self._interval_ns = int(interval_s * 1e9)
        self._switches = switches
        self.due_ns = 0
        """When the next sample is to be taken; compared behind every task."""

    def sample(self, pid: int, now_ns: int, tracing: AllocationTracer | None) -> None:
        """Take a sample, where that has not failed, and tell of what has."""
        self._switches.report_again()
        if self._switches.is_off("heap"):
            self.due_ns = now_ns + max(self._interval_ns, _TELL_INTERVAL_NS)
            return
        try:
            began_ns = time.perf_counter_ns()
            heap = read_heap()
            if tracing is not None:
                tracing.tasks.settle()
            cost_ns = time.perf_counter_ns() - began_ns
            self.due_ns = now_ns + max(self._interval_ns, cost_ns * _COST_FACTOR)
            self._sink.send(
                HeapSampled(
                    pid, now_ns, heap.blocks, heap.malloc_used_bytes, heap.malloc_free_bytes
                )
            )
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            self.due_ns = now_ns + _TELL_INTERVAL_NS
            self._switches.switch_off("heap")


class TaskRecorder:
    """Measures the tasks of the process it is in; follows a fork into the child."""

    def __init__(
        self,
        sink: RecordSink,
        settings: Settings,
        spans: TaskSpans,
        page: ControlPage,
        open_probe: Callable[[], ProcessProbe] = open_process_probe,
        called_from: tuple[str, int, int] = ("", 0, 0),
    ) -> None:
        sign_generated_code()  # before the children are forked
        self._sink = sink
        self._settings = settings
        self._page = page
        self._open_probe = open_probe
        self._called_from = called_from
        self._tracer = TracemallocSession(settings.frames)
        self.time_limits = TimeLimits()
        self.slot = MAIN_SLOT
        self._runs_tasks = True
        self.max_memory_kib = 0
        """``worker_max_memory_per_child``: what billiard compares with the peak, in KiB."""
        self._pid = self._begun_pid = 0
        self._measurement: TaskMeasurement | None = None
        self._fast_path: FastPath | None = None
        self._in_flight: InFlightSlot | None = None
        self._probe: ProcessProbe | None = None
        self.tracing: AllocationTracer | None = None
        self._reopened = 0
        self._switches = PartSwitches(self._tell_failed)
        self._spans = ContainedSpans(spans, self._switches)
        self._heap = HeapSampling(sink, settings.export_interval, self._switches)
        self._soft_limit = SoftLimit()

    def begin(self, slot: int, *, runs_tasks: bool = True) -> None:
        """This process is up; everything that a fork left behind is made anew."""
        self.slot = slot
        self._runs_tasks = runs_tasks
        self._begun_pid = os.getpid()
        self._open()
        if self._in_flight is not None:
            self._in_flight.tell_of_predecessor()
        assert self._probe is not None
        self._sink.send(ProcessUp(self._pid, time.time_ns(), slot, self._probe.rss_bytes()))
        self._switches.report()

    def end(self, exit_code: int) -> None:
        """This process ends in an orderly way."""
        if os.getpid() != self._pid:
            return
        previous, retained_bytes, rss_bytes = "", None, 0
        if self._measurement is not None:
            previous, retained_bytes, rss_bytes = self._measurement.retained_until_now()
        self._end_tracing(previous)
        self._sink.send(
            ProcessDown(
                self._pid,
                time.time_ns(),
                self.slot,
                exit_code,
                rss_bytes,
                retained_bytes,
                exit_reason(exit_code, self.max_memory_kib, self._probe).value,
                previous,
            )
        )

    def stop_tracing(self) -> None:
        """Stop ``tracemalloc`` if we started it; not done to a process that is ending anyway."""
        tracing, self.tracing = self.tracing, None
        self._close_fast_path()
        if tracing is not None:
            tracing.stop()

    def stop(self) -> None:
        """Measure no more, and give back what is held."""
        self._measurement = self._fast_path = self._in_flight = None
        self.tracing = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    # These two are receivers of Celery's signals themselves: a function between would cost.

    def prerun(self, task_id: str = "", task: Any = None, **_: object) -> None:
        """A task is about to run."""
        try:
            if task is None:
                return
            fast_path = self._fast_path
            if fast_path is None or os.getpid() != self._pid or not fast_path.starts(task_id, task):
                self._start(str(task_id), task)
        except SoftTimeLimitExceeded:
            self._soft_limit.struck(self._pid)
            if self._in_flight is not None:
                self._in_flight.doubt()
        except Exception:
            self._measurement_failed()

    def postrun(
        self, task_id: str = "", task: Any = None, state: str | None = None, **_: object
    ) -> None:
        """A task has run."""
        try:
            # A fork of a task may come out of it by itself.
            if task is None or os.getpid() != self._pid:
                return
            if self._soft_limit.pending and not task.request.is_eager:
                self._soft_limit.ended()
            ended_ns = 0 if self._fast_path is None else self._fast_path.ends(task_id, task, state)
            if not ended_ns:
                self._finish(str(task_id), task, state)
            elif ended_ns >= self._heap.due_ns:
                self._heap.sample(self._pid, ended_ns, self.tracing)
        except SoftTimeLimitExceeded:
            self._struck_at_end(str(task_id), task)
        except Exception:
            self._measurement_failed()

    def _start(self, task_id: str, task: Any) -> None:
        if os.getpid() != self._pid:
            self._fast_path = self._in_flight = None  # a fork that nobody told us of
            self._open()
        measurement = self._measurement
        if measurement is None:
            return
        if self._in_flight is not None and measurement.threads:
            measurement.forget_ended_threads()
        if self.tracing is not None:
            self._trace(self.tracing.starting)
        # Asking the request costs more than a probe: only where a task is running already.
        started = measurement.start(task_id, task.name, lambda: bool(task.request.is_eager))
        if self._in_flight is None or started.nested:
            self._sink.send(started)
        else:
            self._in_flight.send(started)
        if (
            self.tracing is not None
            and not started.nested
            and self._trace(self.tracing.started, started, task, alone=measurement.threads == 1)
        ):
            measurement.rebase()

    def _finish(self, task_id: str, task: Any, state: str | None) -> None:
        measurement = self._measurement
        run = None if measurement is None else measurement.finish(task_id)
        if measurement is None or run is None:
            if self._in_flight is not None:
                self._in_flight.forget(task_id)
            return
        span, own = self._spans.of(task, run.started_ns)
        finished = measurement.result(run, state or TERMINATED, span_bytes(span))
        self._sink.send(finished)
        if self._in_flight is not None and not finished.nested:
            # A thread of the task may go on, with tasks of its own.
            self._in_flight.ended(task_id, idle=state is not None and not measurement.runs)
        if self.tracing is not None and not finished.nested:
            self._trace(self.tracing.ended, finished)
        if span is not None:
            self._spans.write(span, own, finished)
        if finished.time_ns >= self._heap.due_ns:
            self._heap.sample(self._pid, finished.time_ns, self.tracing)

    def _struck_at_end(self, task_id: str, task: Any) -> None:
        """A soft time limit hit us at the end of a task: too late, unless it ran inside another."""
        if task.request.is_eager:
            self._soft_limit.struck(self._pid)
        elif self._in_flight is not None and self._in_flight.forget(task_id):
            self._page.drop_counters.count(self.slot, task_end=True)

    def _open(self) -> None:
        """Open the probes of the process we are in now."""
        self._pid = os.getpid()
        if self._probe is not None:
            self._probe.close()
        self._probe = self._open_probe()
        keep_peak = self.max_memory_kib > 0
        self._measurement = TaskMeasurement(self._probe, self._tracer, keep_peak=keep_peak)
        self.tracing = None
        if self._runs_tasks and not self._switches.is_off("tracing"):
            self.tracing = AllocationTracer(
                self.slot,
                self._sink,
                self._settings,
                self._page,
                self._tracer,
                self.time_limits.shortest_s,
                SiteFilter(
                    self._settings.sites_include, self._settings.sites_exclude, self._called_from
                ),
            )
        # In a fork that nobody told us of the place in the page is another's.
        owns = self._pid == self._begun_pid
        self._in_flight = open_in_flight_slot(self.slot, self._sink) if owns else None
        self._fast_path = self._open_fast_path()

    def _open_fast_path(self) -> FastPath | None:
        if self._probe is None or self._measurement is None:
            return None
        return open_fast_path(
            self._in_flight, self._probe, self._measurement, self.tracing, self._spans
        )

    def _tell_failed(self, part: str) -> None:
        self._sink.send(PartFailed(self._pid, time.time_ns(), self.slot, part))

    def _measurement_failed(self) -> None:
        """Open the probes again: a task may have closed our descriptors; give up in the end."""
        self._reopened += 1
        self._measurement = None
        self._close_fast_path()
        if self._reopened > _REOPEN_LIMIT:
            self._switches.switch_off("measurement")
            return
        logger.debug("otel_celery_memory: probes opened again", exc_info=True)
        self._probe = None  # its descriptors may be somebody else's by now: not closed
        try:
            self._open()
        except Exception:
            self._switches.switch_off("measurement")

    def _close_fast_path(self) -> None:
        self._fast_path = None
        if self._in_flight is not None and os.getpid() == self._pid:
            self._in_flight.give_up()

    def _trace(self, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Have the tracing part do something; it fails alone, and leaves nothing traced."""
        try:
            return do(*args, **kwargs)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            self._switches.switch_off("tracing")
            self.tracing = None
            self._fast_path = self._open_fast_path()
            with contextlib.suppress(Exception):
                self._tracer.stop()

    def _end_tracing(self, previous_task: str) -> None:
        if self.tracing is not None:
            self._trace(self.tracing.down, previous_task)
