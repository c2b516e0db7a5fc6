"""One traced run of a task, and the thread that stops the tracing when it has cost enough.

The thread lives as long as the run and `LINGER_S` longer. Neither waits for the other, except for
the microseconds in which a list of traces is taken. Either may close a window of tracing.

The traces of a whole run are read twice: at the task's end, when its return value is still alive,
and a little later, when the return value is gone but the next task's arguments may be there. The
run retained only what both reads contain.

`TracedRun` alone starts and stops `tracemalloc` for a run, under its lock. The thread may stop it
at any moment: what is read of `tracemalloc` counts only if its session is the same before and
after. A soft time limit may be raised on every line.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from otel_celery_memory.probes.native_threads import NativeLock, native_lock, start_native_thread
from otel_celery_memory.probes.sites import (
    LiveSites,
    NoCollections,
    Traces,
    group_traces,
    still_alive,
    take_traces,
)
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.worker.tracing.sampler import Plan

logger = logging.getLogger(__name__)

_SECOND_READ_MAX_TRACES = 20_000
LINGER_S = 0.02
"""A whole run is traced until the next task starts, at most so long after its end."""
_TRACE_COST_S = 1e-6
"""Time to take one trace and group it: tracing of a run with many of them is stopped earlier."""
_POLL_MOST_S = 0.02
_POLL_LEAST_S = 0.002
_NEXT_SLICE_POLL_S = 1.0


@dataclass(frozen=True)
class Traced:
    """What one window of tracing found, and what it cost.

    ``cpu_s`` passed under tracing, ``extra_s`` reading the result. ``whole``: the run was traced
    from its start. ``aborted``: tracing was stopped before the run's end. Only a whole run that
    was not aborted has retained what is alive at the end.
    """

    sites: LiveSites
    cpu_s: float
    extra_s: float
    whole: bool
    aborted: bool


class TracingWindow:
    """The windows of one run, one after the other; `found` gets each one that is closed."""

    def __init__(
        self,
        tracer: TracemallocSession,
        found: Callable[[Traced], None],
        cpu_s: Callable[[], float],
        *,
        whole: bool,
    ) -> None:
        self._tracer = tracer
        self._found = found
        self._cpu_s = cpu_s
        self.whole = whole
        """Whether the next window, or the open one, is the whole run's."""
        self.began_s = cpu_s()
        self.was_opened = False
        self.none_follows = False
        """Whether the run is over: no window is opened any more."""
        self._open = False
        self._first: Traces | None = None
        self._lock = native_lock()

    def open(self) -> bool:
        """Begin to trace; ``False`` where the run is over or the user's code traces."""
        with self._lock:
            self.began_s = self._cpu_s()
            if self.none_follows:
                return False
            # First: a time limit that is raised after `start` must find a window to close.
            self._open = True
            self._open = self._tracer.start()
            self.was_opened |= self._open
            return self._open

    def read_first(self) -> None:
        """At the task's end: keep what is alive, if that is not too much to read twice."""
        with self._lock:
            if not self._open or not self._tracer.ours:
                return
            if self._tracer.live_traces() <= _SECOND_READ_MAX_TRACES:
                self._tracer.free_lists.clear()
                with NoCollections():
                    self._first = take_traces()
                return
        self.close()

    def close(self, *, aborted: bool = False) -> None:
        """Close the window that is open, if one is: stop tracing first, then group the traces."""
        with self._lock:
            if not self._open:
                return
            try:
                # The user's code may have stopped it, or started its own tracing.
                lost = not (self._tracer.ours and self._tracer.session)
                first, self._first = self._first, None
                ended_s = self._cpu_s()
                sites = {} if lost else self._read(first)
            finally:
                # A time limit may be raised while we read.
                self._tracer.stop()
                self._open = False
        now_s = self._cpu_s()
        whole, self.whole = self.whole, False
        self._found(Traced(sites, ended_s - self.began_s, now_s - ended_s, whole, aborted or lost))

    def _read(self, first: Traces | None) -> LiveSites:
        self._tracer.free_lists.clear()
        with NoCollections():
            traces = take_traces()
            self._tracer.stop()
            sites = group_traces(traces)
            return sites if first is None else still_alive(group_traces(first), sites)


class TracedRun:
    """Traces one run as planned; `found` gets each window, in the thread that closes it."""

    def __init__(
        self,
        plan: Plan,
        tracer: TracemallocSession,
        found: Callable[[Traced], None],
        next_slice: Callable[[], Plan | None],
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._plan: Plan | None = plan
        self._tracer = tracer
        self._next_slice = next_slice
        self._cpu_s = cpu_s
        self._window = TracingWindow(tracer, found, cpu_s, whole=plan.begin_after_s is None)
        # Both locks are held until what they stand for has happened.
        self._task_ended, self._over = native_lock(), native_lock()
        self._task_ended.acquire()
        self._over.acquire()

    @property
    def was_traced(self) -> bool:
        """Whether anything of the run was traced."""
        return self._window.was_opened

    def begin(self) -> bool:
        """Start the thread, and tracing if the run is traced from its start.

        ``False`` where that is not possible: no thread is left, or the user's code traces.
        """
        try:
            start_native_thread(self._watch)
        except RuntimeError:
            return False
        if not self._window.whole or self._window.open():
            return True
        self.end()
        return False

    def task_ended(self) -> None:
        """The task has ended; its return value is still alive."""
        self._window.none_follows = True
        try:
            if self._window.whole:
                self._window.read_first()
            else:
                self._window.close()
        finally:
            _open(self._task_ended)

    def end(self) -> None:
        """The next task starts, or the process ends: nothing of this run is traced after that."""
        # First, or the thread may begin a slice meanwhile.
        self._window.none_follows = True
        try:
            self._window.close()
        finally:
            _open(self._task_ended)
            _open(self._over)

    def _watch(self) -> None:
        """The thread: begin slices, stop those that have cost enough, close what is left open."""
        try:
            while self._plan is not None:
                if not self._wait_for_slice(self._plan.begin_after_s):
                    return
                if self._watch_window(self._plan.allowance_s):
                    if not self._over.acquire(True, LINGER_S):
                        self._window.close()
                    return
                self._window.close(aborted=True)
                self._plan = self._wait_for_plan()
        except Exception:
            logger.exception("otel_celery_memory: tracing of a task failed")
            self._tracer.stop()

    def _wait_for_slice(self, begin_after_s: float | None) -> bool:
        if begin_after_s is None:
            return True
        return not self._task_ended.acquire(True, begin_after_s) and self._window.open()

    def _watch_window(self, allowance_s: float) -> bool:
        """Whether the task ended before tracing had cost `allowance_s` of CPU time."""
        while True:
            left_s = allowance_s - (self._cpu_s() - self._window.began_s)
            left_s -= self._tracer.live_traces() * _TRACE_COST_S
            if left_s <= 0:
                return False
            if self._task_ended.acquire(True, min(max(left_s, _POLL_LEAST_S), _POLL_MOST_S)):
                return True

    def _wait_for_plan(self) -> Plan | None:
        while not self._task_ended.acquire(True, _NEXT_SLICE_POLL_S):
            plan = self._next_slice()
            if plan is not None:
                return plan
        return None


def _open(lock: NativeLock) -> None:
    """Release a lock that somebody may wait for; the second time does nothing."""
    with contextlib.suppress(RuntimeError):
        lock.release()
