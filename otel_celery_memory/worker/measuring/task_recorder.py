"""One process's recorder: Celery's signals in, records out; what fails is contained here.

`TaskMeasurement` measures the tasks. A part that raises is logged once and switched off, and the
others go on. After a task, now and then, the process's heap is sampled.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from billiard.pool import EX_FAILURE, EX_RECYCLE
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.circuit_breaker import PartSwitches
from otel_celery_memory.conventions import MALLOC_SLOW, TRACING_UNSAFE
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    ExitReason,
    HeapSampled,
    PartFailed,
    ProcessDown,
    ProcessUp,
)
from otel_celery_memory.probes.allocators import (
    HeapReading,
    clear_type_cache,
    collector_counts,
    glibc,
    malloc_in_use,
    read_heap,
)
from otel_celery_memory.probes.own_memory import (
    ProcessProbe,
    open_process_probe,
)
from otel_celery_memory.probes.sites import SiteFilter, sign_generated_code
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.census import ObjectCensus
from otel_celery_memory.worker.measuring.concurrent_runs import ConcurrentRuns
from otel_celery_memory.worker.measuring.in_flight import InFlightSlot, open_in_flight_slot
from otel_celery_memory.worker.measuring.run_counters import Collector, CounterProbes, RunCounters
from otel_celery_memory.worker.measuring.spans import ContainedSpans, TaskSpans
from otel_celery_memory.worker.measuring.task_measurement import (
    ContainedCensus,
    ContainedCounters,
    ContainedTracing,
    TaskMeasurement,
)
from otel_celery_memory.worker.measuring.time_limits import SoftLimit, TimeLimits
from otel_celery_memory.worker.record_writer import RecordSink
from otel_celery_memory.worker.tracing.allocation_tracer import AllocationTracer

logger = logging.getLogger(__name__)

_COST_FACTOR = 200
"""Sampling the heap may take at most a two-hundredth of the time between two samples."""
_AFTER_FAILURE_NS = 30 * 10**9
"""When to report again, at the earliest, which parts have failed."""
_REOPEN_LIMIT = 3


def exit_reason(exit_code: int, max_memory_kib: int, probe: ProcessProbe | None) -> ExitReason:
    """Why a process ends that ends in an orderly way, by the exit code that billiard chose.

    billiard has one code for recycling; whether for memory or the number of tasks is found here.
    ``max_memory_kib`` is ``worker_max_memory_per_child``, 0 for none.
    """
    if exit_code != EX_RECYCLE:
        return ExitReason.SHUTDOWN
    try:
        # The same comparison that billiard made.
        if probe is not None and 0 < max_memory_kib * 1024 < probe.peak_bytes():
            return ExitReason.MAX_MEMORY
    except OSError:
        pass
    return ExitReason.MAX_TASKS


if hasattr(os, "register_at_fork"):
    # What is in that cache lies all over the heap: a child that dropped it by itself, at its first
    # sample, would have 1 MiB of pages copied that it shares with the main process.
    os.register_at_fork(before=clear_type_cache)


class HeapSampling:
    """Samples the heap, at most every ``interval_s``, and saves the tracing budget's balance."""

    def __init__(
        self,
        sink: RecordSink,
        interval_s: float,
        switches: PartSwitches,
        heap_read: Callable[[HeapReading], object],
    ) -> None:
        """``heap_read`` gets each reading."""
        self._sink = sink
        self._heap_read = heap_read
        self._interval_ns = int(interval_s * 1e9)
        self._switches = switches
        self._counts_before = collector_counts()
        self.due_ns = 0
        """When the next sample is due; compared after every task."""

    def begin(self) -> None:
        """This process is up: what the collector did before is not its own."""
        self._counts_before = collector_counts()

    def sample(self, pid: int, now_ns: int, tracing: AllocationTracer | None) -> None:
        """Take a sample, unless that has failed before; report again the parts that failed."""
        self._switches.report_again()
        if self._switches.is_off("heap"):
            self.due_ns = now_ns + max(self._interval_ns, _AFTER_FAILURE_NS)
            return
        try:
            began_ns = time.perf_counter_ns()
            heap = read_heap()
            self._heap_read(heap)
            if glibc.too_slow:
                self._switches.report_of(MALLOC_SLOW)
            if tracing is not None:
                tracing.tasks.save_balance()
            cost_ns = time.perf_counter_ns() - began_ns
            self.due_ns = now_ns + max(self._interval_ns, cost_ns * _COST_FACTOR)
            self._sink.send(
                HeapSampled(
                    pid,
                    now_ns,
                    heap.blocks,
                    heap.malloc_used_bytes,
                    heap.malloc_free_bytes,
                    *self._collected(),
                )
            )
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            self.due_ns = now_ns + _AFTER_FAILURE_NS
            self._switches.switch_off("heap")

    def end(self, pid: int) -> None:
        """The process ends: its last sample, so that what the collector did is complete."""
        if self.due_ns and not self._switches.is_off("heap"):
            self.sample(pid, time.time_ns(), None)

    def _collected(self) -> Sequence[int]:
        counts = collector_counts()
        if counts is None or self._counts_before is None:
            return ()
        return [now - before for now, before in zip(counts, self._counts_before, strict=True)]


class TaskRecorder:
    """Measures the tasks of the process it is in; follows a fork into the child."""

    def __init__(
        self,
        sink: RecordSink,
        settings: Settings,
        spans: TaskSpans,
        page: ControlPage,
        open_probe: Callable[[], ProcessProbe] | None = None,
        called_from: tuple[str, int, int] = ("", 0, 0),
        own_work: Callable[[], int] = lambda: 0,
    ) -> None:
        """``called_from``: file, first and last line of the function that calls the receivers.

        ``own_work``: how often something of ours was done in this process beside measuring.
        """
        sign_generated_code()  # before the children are forked
        self._sink = sink
        self._settings = settings
        self._page = page
        self._open_probe = open_probe or self._open_own_probe
        self._own_work = own_work
        self._session = TracemallocSession(settings.frames)
        self._shared_heap = self._session.free_lists.shared_heap
        self._made_in = os.getpid()
        self._site_filter = SiteFilter(settings.sites_include, settings.sites_exclude, called_from)
        self.time_limits = TimeLimits()
        self.slot = MAIN_SLOT
        self._runs_tasks = True
        self.max_memory_kib = 0
        """``worker_max_memory_per_child``: what billiard compares with the peak, in KiB."""
        self._pid = self._begun_pid = 0
        self._measurement: TaskMeasurement | None = None
        self._in_flight: InFlightSlot | None = None
        self._probe: ProcessProbe | None = None
        self._reopened = 0
        self._switches = PartSwitches(self._send_failed)
        self._spans = ContainedSpans(spans, self._switches)
        self._tracing = ContainedTracing(None, self._session, self._switches)
        self._census = ContainedCensus(None)
        self._heap = HeapSampling(
            sink, settings.export_interval, self._switches, self._heap_was_read
        )
        self._counters = ContainedCounters(None)
        self._soft_limit = SoftLimit()
        self._session.on_unsafe = lambda: self._switches.report_of(TRACING_UNSAFE)

    @property
    def tracing(self) -> AllocationTracer | None:
        """The allocation tracing of this process; ``None`` where it has none or that failed."""
        return self._tracing.tracer

    def begin(self, slot: int, *, runs_tasks: bool = True) -> None:
        """This process is up; everything that a fork left behind is made anew."""
        self.slot = slot
        self._runs_tasks = runs_tasks
        self._begun_pid = os.getpid()
        if self._begun_pid != self._made_in:
            self._shared_heap.forked()
        # In the main process, too: its children have its modules, and need not look again.
        self._session.is_asked_directly()
        self._open()
        if self._in_flight is not None:
            self._in_flight.send_predecessor()
        assert self._probe is not None
        self._sink.send(ProcessUp(self._pid, time.time_ns(), slot, self._probe.rss_bytes()))
        self._switches.report()

    def end(self, exit_code: object) -> None:
        """This process ends in an orderly way; a task may call ``sys.exit`` with anything."""
        if os.getpid() != self._pid:
            return
        code = exit_code if isinstance(exit_code, int) and abs(exit_code) < 2**31 else EX_FAILURE
        previous, retained_bytes, rss_bytes = "", None, 0
        if self._measurement is not None:
            previous, retained_bytes, rss_bytes = self._measurement.retained_until_now()
        self._heap.end(self._pid)
        self._tracing.down(previous)
        self._census.down()
        self._sink.send(
            ProcessDown(
                self._pid,
                time.time_ns(),
                self.slot,
                code,
                rss_bytes,
                retained_bytes,
                exit_reason(code, self.max_memory_kib, self._probe).value,
                previous,
            )
        )

    def stop_tracing(self) -> None:
        """Stop ``tracemalloc`` if we started it; not done in a process that is ending anyway."""
        tracer, self._tracing.tracer = self._tracing.tracer, None
        if self._measurement is not None:
            self._measurement.forget_plain()
        if tracer is not None:
            tracer.stop()

    def stop(self) -> None:
        """Measure no more, and close the probes."""
        self._measurement = self._in_flight = None
        self._tracing.tracer = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    # These two are receivers of Celery's signals themselves: a function between would cost. All
    # that Celery gives them is named: what is not takes a search and a place in a dictionary.

    def prerun(
        self,
        task_id: str = "",
        task: Any = None,
        args: object = None,
        kwargs: object = None,
        signal: object = None,
        sender: object = None,
        **_: object,
    ) -> None:
        """A task is about to run."""
        try:
            if task is None:
                return
            if os.getpid() != self._pid:
                self._in_flight = None  # a fork that `begin` was not called in
                self._open()
            measurement = self._measurement
            if measurement is not None:
                measurement.start(task_id, task)
        except SoftTimeLimitExceeded:
            self._soft_limit.hit(before_code=True)
            if self._in_flight is not None:
                self._in_flight.may_run()
        except Exception:
            self._measurement_failed()

    def task_init(self, task: Any) -> None:
        """The code of this task is about to run."""
        try:
            if self._soft_limit.is_before_code:
                self._soft_limit.hit()  # it was lost if it was raised in a receiver meanwhile
            self._tracing.task_code_begins(task)
        except SoftTimeLimitExceeded:
            self._soft_limit.hit()

    def postrun(
        self,
        task_id: str = "",
        task: Any = None,
        state: str | None = None,
        args: object = None,
        kwargs: object = None,
        retval: object = None,
        signal: object = None,
        sender: object = None,
        **_: object,
    ) -> None:
        """A task has run."""
        try:
            # A task may fork, and the fork return from the task by itself.
            if task is None or os.getpid() != self._pid:
                return
            if self._soft_limit.pending and not task.request.is_eager:
                self._soft_limit.ended()
            measurement = self._measurement
            if measurement is not None:
                ended_ns = measurement.end(task_id, task, state)
                if ended_ns > self._heap.due_ns:  # never where it is 0
                    self._heap.sample(self._pid, ended_ns, self.tracing)
            elif self._in_flight is not None:
                self._in_flight.forget(str(task_id))
        except SoftTimeLimitExceeded:
            self._limit_hit_at_end(str(task_id), task)
        except Exception:
            self._measurement_failed()

    def _limit_hit_at_end(self, task_id: str, task: Any) -> None:
        """A soft time limit hit us at the end of a task: too late, unless it ran inside another."""
        if task.request.is_eager:
            self._soft_limit.hit()
        elif self._in_flight is not None and self._in_flight.forget(task_id):
            self._page.drop_counters.count(self.slot, task_end=True)

    def _open(self) -> None:
        """Open the probes of the process we are in now."""
        self._pid = os.getpid()
        self._heap.begin()
        if self._probe is not None:
            self._probe.close()
        self._probe = self._open_probe()
        tracer = None
        if self._runs_tasks and not self._switches.is_off("tracing"):
            tracer = AllocationTracer(
                self.slot,
                self._sink,
                self._settings,
                self._page,
                self._session,
                self.time_limits.shortest_s,
                self._site_filter,
            )
        self._tracing = ContainedTracing(tracer, self._session, self._switches)
        has_census = self._runs_tasks and not self._switches.is_off("census")
        collector = Collector(self._shared_heap)
        census = ObjectCensus(self.slot, self._sink, self._page, collector) if has_census else None
        self._census = ContainedCensus(census, self._switches)
        # In a fork that `begin` was not called in, the place in the page is another process's.
        owns = self._pid == self._begun_pid
        self._in_flight = open_in_flight_slot(self.slot, self._sink) if owns else None
        self._counters = ContainedCounters(self._open_counters(self._probe), self._switches)
        self._measurement = TaskMeasurement(
            self._sink,
            self._in_flight,
            self._probe,
            ConcurrentRuns(self._probe, self._session),
            self._spans,
            self._tracing,
            counters=self._counters,
            census=self._census,
        )

    def _open_own_probe(self) -> ProcessProbe:
        return open_process_probe(
            peaks=self._settings.peaks == "on", kept_above_bytes=self.max_memory_kib * 1024
        )

    def _open_counters(self, probe: ProcessProbe) -> RunCounters | None:
        if not self._runs_tasks or self._switches.is_off("counters"):
            return None
        try:
            settings = self._settings
            return RunCounters(
                self._sink,
                settings.overhead_budget,
                settings.max_added_latency,
                probe.rss_bytes,
                CounterProbes(malloc_in_use(), own_work=self._own_work),
                collector=Collector(self._shared_heap),
                before=self._page.load(self.slot),
                has_grown=self._heap_has_grown,
                has_cost=self._samples_have_cost,
            )
        except Exception:
            self._switches.switch_off("counters")
            return None

    def _heap_was_read(self, heap: HeapReading) -> None:
        if self._counters.counters is not None:
            self._counters.counters.heap_read(heap)

    def _heap_has_grown(self, seconds: float) -> None:
        self._shared_heap.may_be_copied()
        tracer = self._tracing.tracer
        if tracer is not None:
            tracer.tasks.heap_has_grown(seconds)

    def _samples_have_cost(self, seconds: float) -> None:
        tracer = self._tracing.tracer
        if tracer is not None:
            tracer.tasks.samples_have_cost(seconds)

    def _send_failed(self, part: str) -> None:
        self._sink.send(PartFailed(self._pid, time.time_ns(), self.slot, part))

    def _measurement_failed(self) -> None:
        """Open the probes again, as a task may have closed our descriptors; in the end, give up."""
        self._reopened += 1
        self._measurement = None
        if self._in_flight is not None and os.getpid() == self._pid:
            self._in_flight.give_up()
        if self._reopened > _REOPEN_LIMIT:
            self._switches.switch_off("measurement")
            return
        logger.debug("otel_celery_memory: probes opened again", exc_info=True)
        self._probe = None  # its descriptors may be somebody else's by now: not closed
        try:
            self._open()
        except Exception:
            self._switches.switch_off("measurement")
