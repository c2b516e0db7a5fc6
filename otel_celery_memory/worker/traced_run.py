"""One run of a task under tracing, and the thread that stops tracing when it has cost enough.

The thread lives as long as the run and `LINGER_S` longer. It never waits for the task and the task
never waits for it, but for the microseconds in which a list of traces is taken.

Whole runs are looked at twice: at the task's end, when its return value is still alive, and a
little later, when the return value is gone but the next task's arguments may be there. Only what
both looks show was left behind by the run.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from otel_celery_memory.probes.sites import (
    LiveSites,
    Traces,
    group_traces,
    no_collections,
    still_alive,
    take_traces,
)
from otel_celery_memory.probes.threads import NativeLock, native_lock, start_native_thread
from otel_celery_memory.probes.tracer import HeapTracer
from otel_celery_memory.worker.sampler import Plan

logger = logging.getLogger(__name__)

LINGER_S = 0.02
"""After its end a whole run stays under tracing until the next task, at most so long."""
_TRACE_COST_S = 1e-6
"""To take one trace and group it: a run with many of them is stopped the earlier."""
_SECOND_LOOK_MAX_TRACES = 20_000
_POLL_MOST_S = 0.02
_POLL_LEAST_S = 0.002
_NEXT_SLICE_POLL_S = 1.0


@dataclass(frozen=True)
class Traced:
    """What one window of tracing found, and what it cost.

    ``cpu_s`` passed under tracing, ``extra_s`` in looking at the result. ``whole`` is a run seen
    from its start; ``aborted`` one whose tracing was stopped before its end. What is alive at the
    end of anything but a whole run not aborted is not yet left behind.
    """

    sites: LiveSites
    cpu_s: float
    extra_s: float
    whole: bool
    aborted: bool


class TracedRun:
    """Traces one run as planned; `found` is called for each window, in whichever thread ends it."""

    def __init__(
        self,
        plan: Plan,
        tracer: HeapTracer,
        found: Callable[[Traced], None],
        next_slice: Callable[[], Plan | None],
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._plan: Plan | None = plan
        self._whole = plan.begin_after_s is None
        self._tracer = tracer
        self._found = found
        self._next_slice = next_slice
        self._cpu_s = cpu_s
        self._began_s = cpu_s()
        self._open = False
        self._first: Traces | None = None
        self._lock = native_lock()
        # Both are held until what they wait for has come.
        self._task_ended, self._over = native_lock(), native_lock()
        self._task_ended.acquire()
        self._over.acquire()
        self._ended = False
        self.was_seen = False
        """Whether anything of the run was traced."""

    def begin(self) -> bool:
        """Start the thread, and tracing where the run is traced from its start.

        ``False`` where that cannot be: no thread, or somebody traces already.
        """
        try:
            start_native_thread(self._watch)
        except RuntimeError:
            return False
        if not self._whole or self._start():
            return True
        self.end()
        return False

    def task_ended(self) -> None:
        """The task has ended; its return value is still alive."""
        self._ended = True
        try:
            if self._whole:
                self._look_first()
            else:
                self._close()
        finally:
            _open(self._task_ended)

    def end(self) -> None:
        """The next task begins, or the process ends: nothing of this run goes on after that."""
        self._ended = True  # first, or the thread may begin a slice behind our back
        try:
            self._close()
        finally:
            _open(self._task_ended)
            _open(self._over)

    def _start(self) -> bool:
        with self._lock:
            self._began_s = self._cpu_s()
            self._open = not self._ended and self._tracer.start()
            self.was_seen |= self._open
            return self._open

    def _look_first(self) -> None:
        with self._lock:
            if not self._open or not self._tracer.ours:
                return
            if self._tracer.live_traces() <= _SECOND_LOOK_MAX_TRACES:
                self._tracer.free_lists.clear()
                with no_collections():
                    self._first = take_traces()
                return
        # To look twice at so much would cost too much.
        self._close()

    def _close(self, *, aborted: bool = False) -> None:
        """End the window that is open, if one is: stop tracing first, then see what there is."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            # Somebody may have ended it, or begun his own.
            stolen = not (self._tracer.ours and self._tracer.session)
            first, self._first = self._first, None
            ended_s = self._cpu_s()
            try:
                sites = {} if stolen else self._look(first)
            finally:
                # A time limit may strike while we look.
                self._tracer.stop()
        now_s = self._cpu_s()
        whole, self._whole = self._whole, False
        self._found(
            Traced(sites, ended_s - self._began_s, now_s - ended_s, whole, aborted or stolen)
        )

    def _look(self, first: Traces | None) -> LiveSites:
        self._tracer.free_lists.clear()
        with no_collections():
            traces = take_traces()
            self._tracer.stop()
            sites = group_traces(traces)
            return sites if first is None else still_alive(group_traces(first), sites)

    def _watch(self) -> None:
        """The thread: begins slices, stops what has cost enough, ends what nobody else ends."""
        try:
            while self._plan is not None:
                if not self._wait_for_slice(self._plan.begin_after_s):
                    return
                if self._watch_window(self._plan.allowance_s):
                    if not self._over.acquire(True, LINGER_S):
                        self._close()
                    return
                self._close(aborted=True)
                self._plan = self._wait_for_plan()
        except Exception:
            logger.exception("otel_celery_memory: tracing of a task failed")
            self._tracer.stop()

    def _wait_for_slice(self, begin_after_s: float | None) -> bool:
        if begin_after_s is None:
            return True
        return not self._task_ended.acquire(True, begin_after_s) and self._start()

    def _watch_window(self, allowance_s: float) -> bool:
        """Whether the task ended before tracing had cost `allowance_s` of CPU time."""
        while True:
            left_s = allowance_s - (self._cpu_s() - self._began_s)
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
    """Let whoever waits go on; done twice, the second time does nothing."""
    with contextlib.suppress(RuntimeError):
        lock.release()
