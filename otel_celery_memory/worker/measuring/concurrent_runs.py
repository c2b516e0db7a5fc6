"""Runs that are inside or beside one another in one process: which they are, and their peaks.

An eager call runs *nested* in the task that made it: the numbers of both are exact, and those of
the outer run include the inner one's. In threads, gevent and eventlet runs *overlap*: growth of the
process belongs to none of them, and all are marked shared. A plain run of a pool child is neither,
and nothing here is called for it (`task_measurement.py`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from otel_celery_memory.ipc.codec import ABSENT
from otel_celery_memory.probes.own_memory import ProcessProbe
from otel_celery_memory.probes.tracemalloc_session import TracedMemory

RunStart = tuple[str, str, int, int, int, str]
"""Task id, task name, start in ns, RSS then, bytes that the run before retained (or `ABSENT`), the
name of its task. A tuple, so that one assignment keeps all of a run or nothing."""


class Run:
    """One execution of a task that is not plain, or not any more."""

    __slots__ = (
        "alone",
        "epoch",
        "has_peak",
        "nested",
        "peak_bytes",
        "rss_bytes",
        "session",
        "started_ns",
        "takes_previous",
        "task",
        "task_id",
        "thread",
        "traced_bytes",
        "traced_peak_bytes",
    )

    def __init__(self, thread: int, epoch: int, *, nested: bool, alone: bool) -> None:
        """``alone``: no other thread runs a task; ``epoch``: the count of overlaps until then."""
        self.thread = thread
        self.epoch = epoch
        self.nested = nested
        self.alone = alone
        self.takes_previous = alone and not nested
        """Whether what grew since the run before is that one's doing."""
        self.task_id = self.task = ""
        self.started_ns = self.rss_bytes = 0
        self.has_peak = False
        self.peak_bytes = self.session = self.traced_bytes = self.traced_peak_bytes = 0

    def take(self, start: RunStart) -> None:
        """Keep what was measured at the start."""
        self.task_id, self.task, self.started_ns, self.rss_bytes, _, _ = start
        self.peak_bytes = self.rss_bytes


class ConcurrentRuns:
    """The runs of one process that are not plain."""

    def __init__(
        self,
        probe: ProcessProbe,
        tracer: TracedMemory,
        thread: Callable[[], int] | None = None,
    ) -> None:
        self._probe = probe
        self._tracer = tracer
        # Read now and not at import, which may come before gevent patches it.
        self._thread = thread or threading.get_ident
        self._first_thread = self._thread()
        self.runs: dict[int, list[Run]] = {}
        """What each thread runs now, outermost first."""
        # Counts the starts that overlapped: a run during which it moved was not alone.
        self._epoch = 0

    @property
    def threads(self) -> int:
        """In how many threads or greenlets a task is running now."""
        return len(self.runs)

    def enter(self, is_nested: Callable[[], bool]) -> Run:
        """A run is about to start in the calling thread; `is_nested` is asked where one runs."""
        thread = self._thread()
        # A task may run others in threads of its own: those are nested in it too, and shared.
        nested = bool(self.runs) and is_nested()
        runs = self.runs.get(thread)
        # Not nested though one runs there: the end of that one was never reported.
        if not runs or not nested:
            self.runs[thread] = []
        # In this order: another thread that starts from here on either is seen or moves the epoch.
        epoch = self._epoch
        return Run(thread, epoch, nested=nested, alone=len(self.runs) == 1)

    def started(self, run: Run, start: RunStart) -> None:
        """The run that `enter` gave has started; its peaks begin."""
        run.take(start)
        runs = self.runs[run.thread]
        if run.alone:
            if runs:
                self._fold_peaks(runs[-1])
            self._begin_peaks(run)
        else:
            self._epoch += 1
        runs.append(run)

    def keep_plain(self, start: RunStart, *, has_peak: bool) -> None:
        """Keep a run that has been plain until now: another one starts inside it.

        A pool child runs its tasks in the thread in which this was made. A thread that a task left
        behind may run one too: `leave` finds its runs all the same.
        """
        run = Run(self._first_thread, self._epoch, nested=False, alone=True)
        run.take(start)
        run.has_peak = has_peak
        self.runs[run.thread] = [run]

    def forget_ended_threads(self) -> None:
        """What they ran is over, though its end was never reported."""
        for thread in self.runs.keys() - sys._current_frames().keys():
            self.runs.pop(thread, None)

    def rebase(self, run: Run) -> None:
        """Begin the numbers of a run that has just started from here."""
        if run.alone:
            run.rss_bytes = run.peak_bytes = self._probe.rss_bytes()
            self._begin_peaks(run)

    def leave(self, task_id: str) -> Run | None:
        """The run that ends in the calling thread; ``None`` where its start was not seen."""
        thread = self._thread()
        runs = self.runs.get(thread)
        if not runs or task_id not in [run.task_id for run in runs]:
            found = self._kept_elsewhere(task_id)
            if found is None:
                return None
            thread, runs = found
        while (run := runs.pop()).task_id != task_id:
            # A run inside it whose end was never reported has reset the peaks.
            runs[-1].has_peak, runs[-1].session = False, 0
        if not runs:
            del self.runs[thread]
        return run

    def _kept_elsewhere(self, task_id: str) -> tuple[int, list[Run]] | None:
        """A run that `keep_plain` kept, if it was another thread's, and the runs inside it."""
        runs = self.runs.get(self._first_thread)
        if runs and runs[0].task_id == task_id:
            return self._first_thread, runs
        return None

    def read_end(self, run: Run, rss_bytes: int) -> tuple[int, int, int, int]:
        """Of the run that `leave` gave: exclusive (1 or 0), peak RSS, traced delta, traced peak.

        Bytes, `ABSENT` where there are none.
        """
        if not run.alone or run.epoch != self._epoch:
            return 0, ABSENT, ABSENT, ABSENT
        peak_bytes = traced_delta = traced_peak = ABSENT
        if run.has_peak:
            peak_bytes = max(run.peak_bytes, self._probe.peak_bytes(), rss_bytes)
        traced = self._read_traced(run)
        if traced is not None:
            traced_bytes, peak = traced
            run.traced_peak_bytes = max(run.traced_peak_bytes, peak)
            traced_delta = traced_bytes - run.traced_bytes
            traced_peak = run.traced_peak_bytes - run.traced_bytes
        if run.nested and (runs := self.runs.get(run.thread)):
            # The inner run's peak is the outer one's too.
            outer = runs[-1]
            outer.peak_bytes = max(outer.peak_bytes, peak_bytes)
            outer.traced_peak_bytes = max(outer.traced_peak_bytes, run.traced_peak_bytes)
        return 1, peak_bytes, traced_delta, traced_peak

    def _begin_peaks(self, run: Run) -> None:
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
        # Another thread may have stopped tracing meanwhile: what was read means nothing then.
        return read if run.session == self._tracer.session else None
