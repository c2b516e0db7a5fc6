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

from otel_celery_memory.circuit_breaker import Switches
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
from otel_celery_memory.probes.sites import SiteFilter
from otel_celery_memory.probes.tracemalloc_session import HeapTracer
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.fast_path import Lane, open_lane
from otel_celery_memory.worker.measuring.in_flight import Holding, open_holding
from otel_celery_memory.worker.measuring.spans import ContainedSpans, TaskSpans, span_bytes
from otel_celery_memory.worker.measuring.task_measurement import Meter
from otel_celery_memory.worker.measuring.time_limits import SoftLimit, TimeLimits
from otel_celery_memory.worker.pipe import Sink
from otel_celery_memory.worker.tracing.allocation_tracer import SiteTracing

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

    def __init__(self, sink: Sink, interval_s: float, switches: Switches) -> None:
        self._sink = sink
        self._interval_ns = int(interval_s * 1e9)
        self._switches = switches
        self.due_ns = 0
        """When the next sample is to be taken; compared behind every task."""

    def sample(self, pid: int, now_ns: int, tracing: SiteTracing | None) -> None:
        """Take a sample, where that has not failed, and tell of what has."""
        self._switches.tell_again()
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


class Recorder:
    """Measures the tasks of the process it is in; follows a fork into the child."""

    def __init__(
        self,
        sink: Sink,
        settings: Settings,
        spans: TaskSpans,
        page: ControlPage,
        open_probe: Callable[[], ProcessProbe] = open_process_probe,
        called_from: tuple[str, int, int] = ("", 0, 0),
    ) -> None:
        self._sink = sink
        self._settings = settings
        self._page = page
        self._open_probe = open_probe
        self._called_from = called_from
        self._tracer = HeapTracer(settings.frames)
        self.time_limits = TimeLimits()
        self.slot = MAIN_SLOT
        self._runs_tasks = True
        self.max_memory_kib = 0
        """``worker_max_memory_per_child``: what billiard compares with the peak, in KiB."""
        self._pid = self._begun_pid = 0
        self._meter: Meter | None = None
        self._lane: Lane | None = None
        self._holding: Holding | None = None
        self._probe: ProcessProbe | None = None
        self.tracing: SiteTracing | None = None
        self._reopened = 0
        self._switches = Switches(self._tell_failed)
        self._spans = ContainedSpans(spans, self._switches)
        self._heap = HeapSampling(sink, settings.export_interval, self._switches)
        self._soft_limit = SoftLimit()

    def begin(self, slot: int, *, runs_tasks: bool = True) -> None:
        """This process is up; everything that a fork left behind is made anew."""
        self.slot = slot
        self._runs_tasks = runs_tasks
        self._begun_pid = os.getpid()
        self._open()
        if self._holding is not None:
            self._holding.tell_of_predecessor()
        assert self._probe is not None
        self._sink.send(ProcessUp(self._pid, time.time_ns(), slot, self._probe.rss_bytes()))
        self._switches.tell()

    def end(self, exit_code: int) -> None:
        """This process ends in an orderly way."""
        if os.getpid() != self._pid:
            return
        previous, retained_bytes, rss_bytes = "", None, 0
        if self._meter is not None:
            previous, retained_bytes, rss_bytes = self._meter.retained_until_now()
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
        self._close_lane()
        if tracing is not None:
            tracing.stop()

    def stop(self) -> None:
        """Measure no more, and give back what is held."""
        self._meter = self._lane = self._holding = None
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
            lane = self._lane
            if lane is None or os.getpid() != self._pid or not lane.starts(task_id, task):
                self._start(str(task_id), task)
        except SoftTimeLimitExceeded:
            self._soft_limit.struck(self._pid)
            if self._holding is not None:
                self._holding.doubt()
        except Exception:
            self._meter_failed()

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
            ended_ns = 0 if self._lane is None else self._lane.ends(task_id, task, state)
            if not ended_ns:
                self._finish(str(task_id), task, state)
            elif ended_ns >= self._heap.due_ns:
                self._heap.sample(self._pid, ended_ns, self.tracing)
        except SoftTimeLimitExceeded:
            self._struck_at_end(str(task_id), task)
        except Exception:
            self._meter_failed()

    def _start(self, task_id: str, task: Any) -> None:
        if os.getpid() != self._pid:
            self._lane = self._holding = None  # a fork that nobody told us of
            self._open()
        meter = self._meter
        if meter is None:
            return
        if self._holding is not None and meter.threads:
            meter.forget_ended_threads()
        if self.tracing is not None:
            self._trace(self.tracing.starting)
        # Asking the request costs more than a probe: only where a task is running already.
        started = meter.start(task_id, task.name, lambda: bool(task.request.is_eager))
        if self._holding is None or started.nested:
            self._sink.send(started)
        else:
            self._holding.send(started)
        if (
            self.tracing is not None
            and not started.nested
            and self._trace(self.tracing.started, started, task, alone=meter.threads == 1)
        ):
            meter.rebase()

    def _finish(self, task_id: str, task: Any, state: str | None) -> None:
        meter = self._meter
        run = None if meter is None else meter.finish(task_id)
        if meter is None or run is None:
            if self._holding is not None:
                self._holding.forget(task_id)
            return
        span, own = self._spans.of(task, run.started_ns)
        finished = meter.result(run, state or TERMINATED, span_bytes(span))
        self._sink.send(finished)
        if self._holding is not None and not finished.nested:
            # A thread of the task may go on, with tasks of its own.
            self._holding.ended(task_id, idle=state is not None and not meter.runs)
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
        elif self._holding is not None and self._holding.forget(task_id):
            self._page.dropped.count(self.slot, task_end=True)

    def _open(self) -> None:
        """Open the probes of the process we are in now."""
        self._pid = os.getpid()
        if self._probe is not None:
            self._probe.close()
        self._probe = self._open_probe()
        keep_peak = self.max_memory_kib > 0
        self._meter = Meter(self._probe, self._tracer, keep_peak=keep_peak)
        self.tracing = None
        if self._runs_tasks and not self._switches.is_off("tracing"):
            self.tracing = SiteTracing(
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
        self._holding = open_holding(self.slot, self._sink) if owns else None
        self._lane = self._open_lane()

    def _open_lane(self) -> Lane | None:
        if self._probe is None or self._meter is None:
            return None
        return open_lane(self._holding, self._probe, self._meter, self.tracing, self._spans)

    def _tell_failed(self, part: str) -> None:
        self._sink.send(PartFailed(self._pid, time.time_ns(), self.slot, part))

    def _meter_failed(self) -> None:
        """Open the probes again: a task may have closed our descriptors; give up in the end."""
        self._reopened += 1
        self._meter = None
        self._close_lane()
        if self._reopened > _REOPEN_LIMIT:
            self._switches.switch_off("meter")
            return
        logger.debug("otel_celery_memory: probes opened again", exc_info=True)
        self._probe = None  # its descriptors may be somebody else's by now: not closed
        try:
            self._open()
        except Exception:
            self._switches.switch_off("meter")

    def _close_lane(self) -> None:
        self._lane = None
        if self._holding is not None and os.getpid() == self._pid:
            self._holding.give_up()

    def _trace(self, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Have the tracing part do something; it fails alone, and leaves nothing traced."""
        try:
            return do(*args, **kwargs)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            self._switches.switch_off("tracing")
            self.tracing = None
            self._lane = self._open_lane()
            with contextlib.suppress(Exception):
                self._tracer.stop()

    def _end_tracing(self, previous_task: str) -> None:
        if self.tracing is not None:
            self._trace(self.tracing.down, previous_task)
