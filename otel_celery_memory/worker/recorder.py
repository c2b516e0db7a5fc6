"""One process's recorder: turns the starts and ends of its tasks into records.

The order inside a task: measure first at the end and last at the start, so that our own work
falls between tasks. Each part that fails is logged once and switched off; the others go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from threading import Timer
from typing import Any

from billiard.pool import EX_RECYCLE, SIG_SOFT_TIMEOUT
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.page import SLOTS, ControlPage
from otel_celery_memory.probes.heap import read_heap
from otel_celery_memory.probes.process import (
    LinuxProcessProbe,
    ProcessProbe,
    open_process_probe,
)
from otel_celery_memory.probes.sites import SiteFilter
from otel_celery_memory.probes.tracer import HeapTracer
from otel_celery_memory.records import (
    MAIN_SLOT,
    TERMINATED,
    ExitReason,
    HeapSampled,
    PartFailed,
    ProcessDown,
    ProcessUp,
    TaskFinished,
)
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.channel import Channel
from otel_celery_memory.worker.lane import Lane
from otel_celery_memory.worker.limits import TimeLimits
from otel_celery_memory.worker.meter import Meter
from otel_celery_memory.worker.sink import Sink
from otel_celery_memory.worker.site_tracing import SiteTracing
from otel_celery_memory.worker.spans import TaskSpans, span_bytes

logger = logging.getLogger(__name__)

_REOPEN_LIMIT = 3
_LIMIT_AGAIN_S = 0.05
_TELL_AGAIN_S = 30.0
_HEAP_COST_FACTOR = 200
"""Reading the heap may take at most a two-hundredth of the time between two readings."""


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
        self._spans: TaskSpans | None = spans
        self._page = page
        self._open_probe = open_probe
        self._called_from = called_from
        self._tracer = HeapTracer(settings.frames)
        self.time_limits = TimeLimits()
        self.slot = MAIN_SLOT
        self._runs_tasks = True
        self.max_memory_kib = 0
        """``worker_max_memory_per_child``: what billiard compares with the peak, in KiB."""
        self._pid = 0
        self._meter: Meter | None = None
        self._lane: Lane | None = None
        self._probe: ProcessProbe | None = None
        self.tracing: SiteTracing | None = None
        self._heap_due_ns = 0
        self._reopened = 0
        self._failed: set[str] = set()
        self._failed_told_s = 0.0
        self._limited = ""

    def begin(self, slot: int, *, runs_tasks: bool = True) -> None:
        """This process is up; everything that a fork left behind is made anew."""
        self.slot = slot
        self._runs_tasks = runs_tasks
        self._open()
        assert self._probe is not None
        self._sink.send(ProcessUp(self._pid, time.time_ns(), slot, self._probe.rss_bytes()))
        self._tell_failed()

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
                self._reason(exit_code).value,
                previous,
            )
        )

    def stop_tracing(self) -> None:
        """Stop ``tracemalloc`` if we started it; not done to a process that is ending anyway."""
        tracing, self.tracing = self.tracing, None
        self._lane = None
        if tracing is not None:
            tracing.stop()

    def stop(self) -> None:
        """Measure no more, and give back what is held."""
        self._meter = self._lane = None
        self.tracing = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def prerun(self, task_id: str, task: Any) -> None:
        """A task is about to run."""
        try:
            if self._failed and time.monotonic() - self._failed_told_s > _TELL_AGAIN_S:
                self._tell_failed()
            if (
                self._lane is None
                or os.getpid() != self._pid
                or not self._lane.starts(task_id, task)
            ):
                self._start(task_id, task)
        except SoftTimeLimitExceeded:
            self._limit_again(task_id)
        except Exception:
            self._meter_failed()

    def postrun(self, task_id: str, task: Any, state: str | None) -> None:
        """A task has run."""
        self._limited = ""
        try:
            ended_ns = 0 if self._lane is None else self._lane.ends(task_id, task, state)
            if not ended_ns:
                self._finish(task_id, task, state)
            elif ended_ns >= self._heap_due_ns:
                self._sample_heap(ended_ns)
        except SoftTimeLimitExceeded:
            return  # too late to be the task's
        except Exception:
            self._meter_failed()

    def _start(self, task_id: str, task: Any) -> None:
        if os.getpid() != self._pid:
            self._open()
        meter = self._meter
        if meter is None:
            return
        if self.tracing is not None:
            self._trace(self.tracing.starting)
        # Asking the request costs more than a probe: only where a task is running already.
        started = meter.start(task_id, task.name, lambda: bool(task.request.is_eager))
        self._sink.send(started)
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
            return
        span, own = self._span(task, run.started_ns)
        finished = meter.result(run, state or TERMINATED, span_bytes(span))
        self._sink.send(finished)
        if self.tracing is not None and not finished.nested:
            self._trace(self.tracing.ended, finished)
        if span is not None:
            self._write_span(span, own, finished)
        if finished.time_ns >= self._heap_due_ns:
            self._sample_heap(finished.time_ns)

    def _span(self, task: Any, started_ns: int) -> tuple[Any, bool]:
        if self._spans is None:
            return None, False
        try:
            return self._spans.of(task, started_ns)
        except Exception:
            self._switch_off("spans")
            self._spans = None
            return None, False

    def _write_span(self, span: Any, own: bool, finished: TaskFinished) -> None:
        if self._spans is None:
            return
        try:
            self._spans.write(span, own, finished)
        except Exception:
            self._switch_off("spans")
            self._spans = None

    def _limit_again(self, task_id: str) -> None:
        """The soft time limit hit us and not the task: have it raised once more, in the task.

        Celery would log what comes out of a signal's receiver and go on, and the limit be lost.
        """
        self._limited = task_id
        timer = Timer(_LIMIT_AGAIN_S, self._raise_limit, (self._pid, task_id))
        timer.daemon = True
        timer.start()

    def _raise_limit(self, pid: int, task_id: str) -> None:
        if self._limited != task_id or os.getpid() != pid or SIG_SOFT_TIMEOUT is None:
            return
        if callable(signal.getsignal(SIG_SOFT_TIMEOUT)):  # else it would end the process
            os.kill(pid, SIG_SOFT_TIMEOUT)

    def _open(self) -> None:
        """Open the probes of the process we are in now."""
        self._pid = os.getpid()
        if self._probe is not None:
            self._probe.close()
        self._probe = self._open_probe()
        keep_peak = self.max_memory_kib > 0
        self._meter = Meter(self._probe, self._tracer, keep_peak=keep_peak)
        self._lane = None
        self.tracing = None
        if self._runs_tasks and "tracing" not in self._failed:
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
        self._open_lane()

    def _open_lane(self) -> None:
        """The short way through plain runs, where a process runs one task at a time."""
        if (
            0 <= self.slot < SLOTS - 2
            and isinstance(self._sink, Channel)
            and isinstance(self._probe, LinuxProcessProbe)
            and self._probe.peak_is_of_rusage
            and self._meter is not None
        ):
            self._lane = Lane(
                self._sink, self._probe, self._meter, self.tracing, self._span, self._write_span
            )

    def _meter_failed(self) -> None:
        """Open the probes again: a task may have closed our descriptors; give up in the end."""
        self._reopened += 1
        self._meter = self._lane = None
        if self._reopened > _REOPEN_LIMIT:
            self._switch_off("meter")
            return
        logger.debug("otel_celery_memory: probes opened again", exc_info=True)
        self._probe = None  # its descriptors may be somebody else's by now: not closed
        try:
            self._open()
        except Exception:
            self._switch_off("meter")

    def _trace(self, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Have the tracing part do something; it fails alone, and leaves nothing traced."""
        try:
            return do(*args, **kwargs)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            self._switch_off("tracing")
            self.tracing = self._lane = None
            with contextlib.suppress(Exception):
                self._tracer.stop()

    def _end_tracing(self, previous_task: str) -> None:
        if self.tracing is not None:
            self._trace(self.tracing.down, previous_task)

    def _sample_heap(self, now_ns: int) -> None:
        interval_ns = int(self._settings.export_interval * 1e9)
        try:
            began_ns = time.perf_counter_ns()
            heap = read_heap()
            if self.tracing is not None:
                self.tracing.tasks.settle()
            cost_ns = time.perf_counter_ns() - began_ns
            self._heap_due_ns = now_ns + max(interval_ns, cost_ns * _HEAP_COST_FACTOR)
            self._sink.send(
                HeapSampled(
                    self._pid, now_ns, heap.blocks, heap.malloc_used_bytes, heap.malloc_free_bytes
                )
            )
        except Exception:
            self._heap_due_ns = 2**63
            self._switch_off("heap")

    def _reason(self, exit_code: int) -> ExitReason:
        if exit_code != EX_RECYCLE:
            return ExitReason.SHUTDOWN
        try:
            # The comparison that billiard made.
            if (
                self._probe is not None
                and 0 < self.max_memory_kib * 1024 < self._probe.peak_bytes()
            ):
                return ExitReason.MAX_MEMORY
        except OSError:
            pass
        return ExitReason.MAX_TASKS

    def _switch_off(self, part: str) -> None:
        if part not in self._failed:
            self._failed.add(part)
            logger.exception("otel_celery_memory: %s failed and is switched off", part)
            self._tell_failed()

    def _tell_failed(self) -> None:
        """Tell which parts are off; again, since a frame may be dropped or a reporter die."""
        self._failed_told_s = time.monotonic()
        for part in sorted(self._failed):
            self._sink.send(PartFailed(self._pid, time.time_ns(), self.slot, part))
