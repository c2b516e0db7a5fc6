"""What one task did to its process's memory: probes read at its start and its end.

Two ways of being inside one another are told apart. An eager call runs *nested* in the task that
made it: both numbers are exact, the outer one includes the inner one. In threads, gevent and
eventlet tasks *overlap*: growth of the process belongs to nobody, and both are marked shared.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from otel_celery_memory.ipc.records import NO_SPAN, TaskFinished, TaskStarted
from otel_celery_memory.probes.own_memory import ProcessProbe
from otel_celery_memory.probes.tracemalloc_session import TracedMemory


class Run:
    """A task between its start and its end."""

    __slots__ = (
        "epoch",
        "has_peak",
        "nested",
        "peak_bytes",
        "rss_bytes",
        "session",
        "shared",
        "started_ns",
        "task",
        "task_id",
        "traced_bytes",
        "traced_peak_bytes",
    )

    def __init__(self, task_id: str, task: str, nested: bool, started_ns: int) -> None:
        self.task_id = task_id
        self.task = task
        self.nested = nested
        self.started_ns = started_ns
        self.rss_bytes = 0
        self.peak_bytes = 0
        self.has_peak = False
        self.session = 0
        self.traced_bytes = 0
        self.traced_peak_bytes = 0
        self.shared = False
        self.epoch = 0


class TaskMeasurement:
    """Measures the tasks of one process; knows nothing of Celery."""

    def __init__(
        self,
        probe: ProcessProbe,
        tracer: TracedMemory,
        clock_ns: Callable[[], int] = time.time_ns,
        thread: Callable[[], int] | None = None,
        *,
        keep_peak: bool = False,
    ) -> None:
        self._probe = probe
        self._tracer = tracer
        self._clock_ns = clock_ns
        # Looked up now and not at import, which may come before gevent patches it.
        self._thread = thread or threading.get_ident
        self._keep_peak = keep_peak
        self._pid = os.getpid()
        self.runs: dict[int, list[Run]] = {}
        """What each thread runs now, outermost first."""
        # Counts the starts that overlapped: a run during which it moved had company.
        self._epoch = 0
        self.previous: tuple[str, int] | None = None
        """Name and RSS at the start of the last run that had the process to itself."""

    def start(self, task_id: str, task: str, is_nested: Callable[[], bool]) -> TaskStarted:
        """A task starts in the calling thread; `is_nested` is asked where one runs there."""
        thread = self._thread()
        # A task may run others in threads of its own: those are nested in it too, and shared.
        nested = bool(self.runs) and is_nested()
        runs = self.runs.get(thread)
        # A run that is not nested in the one before: that one's end was never told.
        if not runs or not nested:
            runs = self.runs[thread] = []
        # In this order: another thread that starts from here on either is seen or moves the epoch.
        epoch = self._epoch
        alone = len(self.runs) == 1
        run = Run(task_id, task, nested, self._clock_ns())
        rss_bytes = run.rss_bytes = run.peak_bytes = self._probe.rss_bytes()
        if alone:
            if runs:
                self._fold_peaks(runs[-1])
            self._begin_peaks(run)
        else:
            self._epoch += 1
            run.shared = True
        run.epoch = epoch
        previous, retained_bytes = "", None
        if not run.nested:
            before, self.previous = self.previous, None
            if alone and before is not None:
                previous = before[0]
                retained_bytes = rss_bytes - before[1]
        runs.append(run)
        return TaskStarted(
            self._pid,
            run.started_ns,
            rss_bytes,
            retained_bytes,
            1 if run.nested else 0,
            task_id,
            task,
            previous,
        )

    def adopt(self, task_id: str, task: str, started_ns: int, rss_bytes: int, thread: int) -> None:
        """Measure on a run that began elsewhere, in that thread, since `rss_bytes`."""
        run = Run(task_id, task, False, started_ns)
        run.rss_bytes = run.peak_bytes = rss_bytes
        run.has_peak = True
        run.epoch = self._epoch
        self.runs[thread] = [run]

    def forget_ended_threads(self) -> None:
        """What they ran is over, though its end was never told."""
        for thread in self.runs.keys() - sys._current_frames().keys():
            self.runs.pop(thread, None)

    @property
    def threads(self) -> int:
        """In how many threads or greenlets a task is running now."""
        return len(self.runs)

    def rebase(self) -> None:
        """Begin the numbers of the run that just started from here."""
        runs = self.runs.get(self._thread())
        if runs and not runs[-1].shared:
            run = runs[-1]
            run.rss_bytes = run.peak_bytes = self._probe.rss_bytes()
            self._begin_peaks(run)

    def finish(self, task_id: str) -> Run | None:
        """The task that ends in the calling thread; ``None`` where its start was not seen."""
        thread = self._thread()
        runs = self.runs.get(thread)
        if not runs or task_id not in [run.task_id for run in runs]:
            return None
        while (run := runs.pop()).task_id != task_id:
            # What ran inside and was never told to have ended has taken the peaks with it.
            runs[-1].has_peak, runs[-1].session = False, 0
        if not runs:
            del self.runs[thread]
        return run

    def result(self, run: Run, state: str, span: bytes = NO_SPAN) -> TaskFinished:
        """The numbers of a run that `finish` gave; call at once."""
        rss_bytes = self._probe.rss_bytes()
        exclusive = not run.shared and run.epoch == self._epoch
        peak_bytes = traced_delta = traced_peak = None
        if exclusive:
            if run.has_peak:
                peak_bytes = max(run.peak_bytes, self._probe.peak_bytes(), rss_bytes)
            traced = self._read_traced(run)
            if traced is not None:
                traced_bytes, peak = traced
                traced_delta = traced_bytes - run.traced_bytes
                traced_peak = max(run.traced_peak_bytes, peak) - run.traced_bytes
                run.traced_peak_bytes = max(run.traced_peak_bytes, peak)
            if not run.nested:
                self.previous = (run.task, run.rss_bytes)
            elif runs := self.runs.get(self._thread()):
                self._hand_peaks_up(run, runs[-1], peak_bytes)
        return TaskFinished(
            self._pid,
            self._clock_ns(),
            run.started_ns,
            run.rss_bytes,
            rss_bytes - run.rss_bytes,
            None if peak_bytes is None else peak_bytes - run.rss_bytes,
            traced_delta,
            traced_peak,
            None,
            1 if exclusive else 0,
            1 if run.nested else 0,
            span,
            run.task_id,
            run.task,
            state,
            "",
        )

    def retained_until_now(self) -> tuple[str, int | None, int]:
        """The last task's name, what it retained until now, and RSS now."""
        rss_bytes = self._probe.rss_bytes()
        if self.previous is None:
            return "", None, rss_bytes
        return self.previous[0], rss_bytes - self.previous[1], rss_bytes

    def _begin_peaks(self, run: Run) -> None:
        # billiard compares the peak of the whole task with max_memory_per_child.
        if not (run.nested and self._keep_peak):
            run.has_peak = self._probe.reset_peak()
        run.session = self._tracer.session
        if run.session:
            run.traced_bytes = run.traced_peak_bytes = self._tracer.begin()

    def _fold_peaks(self, outer: Run) -> None:
        """Keep the outer run's peaks so far: the inner run is about to reset the marks."""
        if outer.has_peak:
            outer.peak_bytes = max(outer.peak_bytes, self._probe.peak_bytes())
        traced = self._read_traced(outer)
        if traced is not None:
            outer.traced_peak_bytes = max(outer.traced_peak_bytes, traced[1])

    def _read_traced(self, run: Run) -> tuple[int, int] | None:
        """Traced bytes now and the peak, if all of the run until now was traced."""
        if not run.session or run.session != self._tracer.session:
            return None
        read = self._tracer.read()
        # Another thread may have stopped tracing meanwhile: what was read is nothing then.
        return read if run.session == self._tracer.session else None

    @staticmethod
    def _hand_peaks_up(inner: Run, outer: Run, peak_bytes: int | None) -> None:
        """The inner run's peak is the outer one's too."""
        if peak_bytes is not None:
            outer.peak_bytes = max(outer.peak_bytes, peak_bytes)
        outer.traced_peak_bytes = max(outer.traced_peak_bytes, inner.traced_peak_bytes)
