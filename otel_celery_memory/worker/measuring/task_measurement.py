"""What one run of a task did to its process's memory: measured, and sent as one record or two.

`TaskMeasurement` computes the numbers of each run, in two functions: RSS at the start and the end,
the delta, the peak, and what the run before retained. A **plain** run takes the fast path, which is
these two functions and nothing of what they call for the others: it runs alone in a pool child, and
its allocations are not traced. Beside a real task, whose data fills the processor's caches, the
cost of Python code is how much *different* code runs: calling everything for each run took 35 us
there, the fast path takes half of that.

The start of a plain run is not sent: its frame is kept in the control page (`in_flight.py`), and
what it says of the run before goes with the frame of the end. So one frame a run goes through the
ring.

A soft time limit may raise an exception between any two lines. What the end of a run needs is
therefore kept by one assignment.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from time import monotonic_ns
from tracemalloc import is_tracing
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from celery.states import SUCCESS

from otel_celery_memory.circuit_breaker import PartSwitches
from otel_celery_memory.ipc.codec import ABSENT, FINISHED, STARTED, finished_record, frame_of
from otel_celery_memory.ipc.control_page import IDLE, IN_FLIGHT_BYTES, UNKNOWN
from otel_celery_memory.ipc.records import (
    NO_SPAN,
    RAISED_STATES,
    TERMINATED,
    TaskStarted,
)
from otel_celery_memory.probes.own_memory import ProcessProbe
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.worker.measuring.census import ObjectCensus
from otel_celery_memory.worker.measuring.concurrent_runs import ConcurrentRuns, Run, RunStart
from otel_celery_memory.worker.measuring.in_flight import InFlightSlot
from otel_celery_memory.worker.measuring.run_counters import RunCounters
from otel_celery_memory.worker.measuring.spans import ContainedSpans, span_bytes
from otel_celery_memory.worker.record_writer import RecordSink, RecordWriter
from otel_celery_memory.worker.tracing.allocation_tracer import AllocationTracer


class TaskMeasurement:
    """Measures the runs of one process; belongs to the process that made it."""

    def __init__(
        self,
        sink: RecordSink,
        in_flight: InFlightSlot | None,
        probe: ProcessProbe,
        concurrent: ConcurrentRuns,
        spans: ContainedSpans,
        tracing: ContainedTracing,
        clock_ns: Callable[[], int] = time.time_ns,
        counters: ContainedCounters | None = None,
        census: ContainedCensus | None = None,
    ) -> None:
        self._sink = sink
        # Its frames need no record to be made of them.
        self._writer = sink if isinstance(sink, RecordWriter) else None
        self._in_flight = in_flight
        self._probe = probe
        self._concurrent = concurrent
        self._runs = concurrent.runs
        self._spans = spans
        self._tracing = tracing
        self._counters = counters or ContainedCounters(None)
        self._census = census or ContainedCensus(None)
        self._clock_ns = clock_ns
        self._pid = os.getpid()
        self._plain: RunStart | None = None
        """The plain run that has started and not ended."""
        self._plain_has_peak = False
        self._previous: tuple[str, int] | None = None
        """Task name and RSS at the start of the last run, if that had the process to itself."""
        self._may_be_plain = False
        if in_flight is not None:
            self._send_frame = in_flight.writer.send_frame
            self._page, self._at = in_flight.place
            self._may_be_plain = not self._census.active

    def start(self, task_id: str, task: Any) -> None:
        """A task starts in the calling thread."""
        name, tracing = task.name, self._tracing.tracer
        if (
            self._may_be_plain
            and self._plain is None
            and not self._runs
            and not is_tracing()
            and (
                tracing is None
                or (self._page[:8] == tracing.seen and tracing.tasks.passes(name, task_id))
            )
        ):
            run, before = None, self._previous
        else:
            run = self._enter(task)
            task_id, before = str(task_id), self._previous if run.takes_previous else None
        counters = self._counters.counters
        if counters is not None and (run is None or run.takes_previous):
            left = counters.left.get(name)
            if left and not counters.open and monotonic_ns() < counters.due_ns:
                counters.left[name] = left - 1
            else:
                self._counters.boundary(name, "" if before is None else before[0])
        now_ns = self._clock_ns()
        rss_bytes = self._probe.rss_bytes()
        if before is None:
            previous_task, retained_bytes = "", ABSENT
        else:
            previous_task, retained_bytes = before[0], rss_bytes - before[1]
        start = (task_id, name, now_ns, rss_bytes, retained_bytes, previous_task)
        if run is not None:
            self._started(run, start, task)
            return
        try:
            numbers = (self._pid, now_ns, rss_bytes, retained_bytes, 0)
            frame = frame_of(STARTED, numbers, (task_id, name, previous_task))
            size = len(frame)
        except TypeError:  # the id or the name is not a string
            size = IN_FLIGHT_BYTES + 1
        if size > IN_FLIGHT_BYTES:
            self._started(self._enter(task), (str(task_id), *start[1:]), task)
            return
        # First what its end needs.
        self._plain, self._previous = start, None
        self._page[self._at : self._at + size] = frame
        self._plain_has_peak = self._probe.reset_peak()

    def end(self, task_id: str, task: Any, state: str | None) -> int:  # noqa: PLR0912
        """A task ends in the calling thread: when, in ns; 0 where its start was not seen.

        ``state`` is ``None`` where a signal to the process ended the task.
        """
        start, run = self._plain, None
        if start is not None and start[0] == task_id:
            _, name, started_ns, start_bytes, retained_bytes, previous_task = start
        else:
            task_id = str(task_id)
            run = self._leave(task_id)
            if run is None:
                return 0
            name, started_ns, start_bytes = run.task, run.started_ns, run.rss_bytes
            # What the run before retained was sent with the start.
            retained_bytes, previous_task = ABSENT, ""
        if state != SUCCESS:
            self._counters.did_not_succeed()
        rss_bytes = self._probe.rss_bytes()
        if run is None:
            peak_bytes = self._probe.peak_bytes() if self._plain_has_peak else ABSENT
            exclusive, nested = 1, 0
            traced_delta_bytes = traced_peak_bytes = ABSENT
        else:
            found = self._concurrent.read_end(run, rss_bytes)
            exclusive, peak_bytes, traced_delta_bytes, traced_peak_bytes = found
            nested = int(run.nested)
        if peak_bytes != ABSENT:
            peak_bytes = (peak_bytes if peak_bytes > rss_bytes else rss_bytes) - start_bytes
        try:
            span, own = self._spans.search(task, started_ns)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            span, own = self._spans.failed()
        now_ns = self._clock_ns()
        numbers = (
            self._pid,
            now_ns,
            started_ns,
            start_bytes,
            rss_bytes - start_bytes,
            peak_bytes,
            traced_delta_bytes,
            traced_peak_bytes,
            retained_bytes,
            exclusive,
            nested,
            NO_SPAN if span is None else span_bytes(span),
        )
        strings = (task_id, name, state or TERMINATED, previous_task)
        if run is None:
            self._send_frame(frame_of(FINISHED, numbers, strings))
            # Of a run that a signal ended, the reporter may ask when it reports the process's end.
            self._page[self._at] = IDLE if state else UNKNOWN
            self._previous = (name, start_bytes)
            self._plain = None
            if self._tracing.tracer is not None:
                self._tracing.tracer.tasks.passed()
        else:
            self._ended(run, numbers, strings, alone=bool(exclusive), idle=state is not None)
        if span is not None:
            self._spans.write(span, own, finished_record(numbers, strings))
        return now_ns

    def retained_until_now(self) -> tuple[str, int | None, int]:
        """The last task's name, the bytes that it retained until now, and RSS now."""
        rss_bytes = self._probe.rss_bytes()
        if self._previous is None:
            return "", None, rss_bytes
        return self._previous[0], rss_bytes - self._previous[1], rss_bytes

    def forget_plain(self) -> None:
        """Measure the plain run no further that may have started: its end may be missed."""
        self._plain = None
        self._counters.discard()
        if self._in_flight is not None and os.getpid() == self._pid:
            self._in_flight.give_up()

    # The rest is not called for plain runs.

    def _enter(self, task: Any) -> Run:
        """A run that is not plain is about to start."""
        plain, concurrent = self._plain, self._concurrent
        if plain is not None:
            self._hand_over(plain, task)
        if self._in_flight is not None and self._runs:
            concurrent.forget_ended_threads()
        if self._tracing.tracer is not None:
            self._tracing.starting()
        # The request is asked only where a task runs already: it costs more than a probe.
        run = concurrent.enter(lambda: bool(task.request.is_eager))
        if self._census.active and not run.nested:
            self._take_census(task.name, alone=run.alone)
        return run

    def _take_census(self, name: str, *, alone: bool) -> None:
        """Before this run: a census of objects, which is ordered, if no other one runs."""
        if not alone:
            self._census.run_starts(name)
            return
        self._tracing.close_window()  # else what it keeps would be found there
        if self._census.boundary(name):
            # What it takes and leaves is nobody's.
            self._previous = None
            self._counters.discard()
        # As long as it is not complete, each run comes by here.
        self._may_be_plain = self._in_flight is not None and not self._census.active

    def _hand_over(self, plain: RunStart, task: Any) -> None:
        """The plain run has another one inside it, or its end was never reported."""
        if not task.request.is_eager:
            self.forget_plain()
            return
        # In this order: a time limit that comes between the lines leaves the run known to one.
        self._concurrent.keep_plain(plain, has_peak=self._plain_has_peak)
        self._plain = None
        self._send_start(plain, nested=False)

    def _started(self, run: Run, start: RunStart, task: Any) -> None:
        self._concurrent.started(run, start)
        self._send_start(start, nested=run.nested)
        if run.nested:
            return
        self._previous = None
        alone = self._concurrent.threads == 1
        if not alone or (self._in_flight is not None and self._tracing.tracer is not None):
            # In a pool child a run that is not plain is traced, or may be from its middle on.
            self._counters.discard()
        if self._tracing.tracer is None:
            return
        if self._tracing.started(run.task_id, task, start[5], alone=alone):
            self._counters.discard()
            self._concurrent.rebase(run)

    def _send_start(self, start: RunStart, *, nested: bool) -> None:
        if self._in_flight is not None and not nested:
            self._in_flight.send(self._start_record(start))
        elif self._writer is not None:
            task_id, name, now_ns, rss_bytes, retained_bytes, previous_task = start
            numbers = (self._pid, now_ns, rss_bytes, retained_bytes, int(nested))
            self._writer.send_fields(STARTED, numbers, (task_id, name, previous_task))
        else:
            self._sink.send(self._start_record(start, nested=nested))

    def _leave(self, task_id: str) -> Run | None:
        run = self._concurrent.leave(task_id)
        if run is None and self._in_flight is not None:
            self._in_flight.forget(task_id)
        return run

    def _ended(
        self,
        run: Run,
        numbers: Sequence[int | bytes],
        strings: tuple[str, ...],
        *,
        alone: bool,
        idle: bool,
    ) -> None:
        if self._writer is not None:
            self._writer.send_fields(FINISHED, numbers, strings)
        else:
            self._sink.send(finished_record(numbers, strings))
        if run.nested:
            return
        if self._in_flight is not None:
            # A thread of the task may go on, with tasks of its own.
            self._in_flight.ended(run.task_id, idle=idle and not self._runs)
        if alone:
            self._previous = (str(run.task), run.rss_bytes)
        if self._tracing.tracer is not None:
            task_id, name, state, _ = strings
            raised = state in RAISED_STATES
            self._tracing.ended(task_id, name, exclusive=alone, raised=raised)

    def _start_record(self, start: RunStart, *, nested: bool = False) -> TaskStarted:
        task_id, name, now_ns, rss_bytes, retained_bytes, previous_task = start
        return TaskStarted(
            self._pid,
            now_ns,
            rss_bytes,
            None if retained_bytes == ABSENT else retained_bytes,
            int(nested),
            task_id,
            name,
            previous_task,
        )


class ContainedCounters:
    """`RunCounters` that raise nothing but a task's time limit; where they fail they are off."""

    def __init__(self, counters: RunCounters | None, switches: PartSwitches | None = None) -> None:
        self.counters = counters
        """``None`` where runs are not sampled."""
        self._switches = switches

    def boundary(self, name: str, previous: str) -> None:
        """As `RunCounters.boundary`."""
        counters = self.counters
        assert counters is not None
        try:
            counters.boundary(name, previous)
        except SoftTimeLimitExceeded:
            counters.open = ""
            raise
        except RecursionError:
            counters.open = ""  # the user's limit is low here: the run is not sampled
        except Exception:
            self.counters = None
            if self._switches is not None:
                self._switches.switch_off("counters")

    def did_not_succeed(self) -> None:
        """A run has ended, and raised perhaps: as `RunCounters.raised`."""
        if self.counters is not None:
            self.counters.raised()

    def discard(self) -> None:
        """As `RunCounters.discard`."""
        if self.counters is not None:
            self.counters.discard()


class ContainedCensus:
    """An `ObjectCensus` that raises nothing but a task's time limit; where it fails it is off."""

    def __init__(self, census: ObjectCensus | None, switches: PartSwitches | None = None) -> None:
        self.census = census
        """``None`` where the process runs no tasks, or it has failed."""
        self._switches = switches

    @property
    def active(self) -> bool:
        """As `ObjectCensus.active`."""
        return self.census is not None and self.census.active

    def boundary(self, name: str) -> bool:
        """As `ObjectCensus.boundary`."""
        return self._run(lambda census: census.boundary(name))

    def run_starts(self, name: str) -> None:
        """As `ObjectCensus.run_starts`."""
        self._run(lambda census: census.run_starts(name))

    def down(self) -> None:
        """As `ObjectCensus.down`."""
        self._run(lambda census: census.down())

    def _run(self, function: Callable[[ObjectCensus], bool | None]) -> bool:
        if self.census is None:
            return False
        try:
            return bool(function(self.census))
        except SoftTimeLimitExceeded:
            raise
        except RecursionError:
            return True  # the user's limit is low here
        except Exception:
            self.census = None
            if self._switches is not None:
                self._switches.switch_off("census")
            return True


class ContainedTracing:
    """An `AllocationTracer` that raises nothing but a task's time limit.

    Where it fails, it is switched off, `tracemalloc` is stopped, and all else goes on.
    """

    def __init__(
        self, tracer: AllocationTracer | None, session: TracemallocSession, switches: PartSwitches
    ) -> None:
        self.tracer = tracer
        """``None`` where this process traces nothing: it runs no tasks, or tracing has failed."""
        self._session = session
        self._switches = switches

    def starting(self) -> None:
        """As `AllocationTracer.starting`."""
        if self.tracer is not None:
            self._run(self.tracer.starting)

    def started(self, task_id: str, task: Any, previous_task: str, *, alone: bool) -> bool:
        """As `AllocationTracer.started`."""
        tracer = self.tracer
        if tracer is None:
            return False
        return bool(self._run(tracer.started, task_id, task, previous_task, alone=alone))

    def task_code_begins(self, task: Any) -> None:
        """As `SampledTracing.task_code_begins`."""
        if self.tracer is not None and self.tracer.tasks.has_window:
            self._run(self.tracer.tasks.task_code_begins, task)

    def close_window(self) -> None:
        """Traces no further in the window that is open, if one is."""
        if self.tracer is not None and self.tracer.tasks.has_window:
            self._run(self.tracer.tasks.down)

    def ended(self, task_id: str, name: str, *, exclusive: bool, raised: bool) -> None:
        """As `AllocationTracer.ended`."""
        if self.tracer is not None:
            self._run(self.tracer.ended, task_id, name, exclusive=exclusive, raised=raised)

    def down(self, previous_task: str) -> None:
        """As `AllocationTracer.down`."""
        if self.tracer is not None:
            self._run(self.tracer.down, previous_task)

    def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            self._switches.switch_off("tracing")
            self.tracer = None
            with contextlib.suppress(Exception):
                self._session.stop()
