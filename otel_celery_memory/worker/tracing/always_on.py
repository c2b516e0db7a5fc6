"""What stays allocated where tracing is always on: by one run of a task, and in the whole heap.

A run's window reaches from the start of its task to the next start in the process: by then the
return value and the arguments, still alive at postrun, are gone. What the run freed is subtracted,
so a full cache that replaces its oldest entry shows nothing. Each window costs two reads of all
live traces; windows are opened only so often that reading takes less than a twentieth of the time.

Memory that grows in threads or between tasks, or too slowly for a single run to show it, appears in
the difference to a baseline of the whole live heap, which is read when the process is warm.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Lock

from otel_celery_memory.ipc.records import Record, WindowKind
from otel_celery_memory.probes.allocators import give_back_free_memory
from otel_celery_memory.probes.sites import LiveSites, SiteFilter, changed_sites, live_sites
from otel_celery_memory.worker.tracing.site_records import window_records

_REST_FACTOR = 20
"""A read that took t seconds is followed by at least 20 t without one."""
_NAMES_MAX = 200
WARM_UP_TASKS = 100
_HEAP_REST_FACTOR = 50
"""A read that took t seconds is followed by at least 50 t without one."""


class RunDiff:
    """Opens and closes windows at the starts of a process's tasks."""

    def __init__(
        self,
        chosen: SiteFilter,
        read: Callable[[], LiveSites] = live_sites,
        release: Callable[[], None] = give_back_free_memory,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._chosen = chosen
        self._read = read
        self._release = release
        self._clock_s = clock_s
        self._pid = os.getpid()
        self._before: LiveSites | None = None
        self._task = ""
        self._raised = False
        self._rest_until_s = 0.0
        self._seen: set[str] = set()
        self._lock = Lock()

    def task_starts(self, task: str, previous_task: str) -> list[Record]:
        """A task starts: the window of `previous_task` closes, one for `task` may open.

        `previous_task` is empty where the growth since its start may be another's doing. While
        another thread reads, nothing is done: the two tasks overlap anyway.
        """
        if not self._lock.acquire(blocking=False):
            return []
        try:
            return self._turn(task, previous_task)
        finally:
            self._lock.release()

    def _turn(self, task: str, previous_task: str) -> list[Record]:
        began_s = self._clock_s()
        latest = after = self._read() if self._closes(previous_task) else None
        found = [] if after is None else self._records(after)
        self._before, self._raised = None, False
        # A name that was never measured goes first, however busy its process is.
        new = task not in self._seen and len(self._seen) < _NAMES_MAX
        if new or began_s >= self._rest_until_s:
            latest = self._before = self._read() if after is None else after
            self._task = task
            if new:
                self._seen.add(task)
        if latest is not None:
            del latest, after
            # The list of all traces is free memory now. Kept in the heap, it would be used for
            # what the task is about to leak, and RSS would not grow.
            self._release()
            self._rest(began_s)
        return found

    def run_raised(self) -> None:
        """The run that has just ended raised an exception.

        The exception is in a cycle with all its frames and is alive until the collector runs. It is
        larger than most leaks, and the run has not retained it.
        """
        self._raised = True

    def close(self, previous_task: str) -> list[Record]:
        """The records of the open window, if it was opened for `previous_task`."""
        found = self._records(self._read()) if self._closes(previous_task) else []
        self._before = None
        return found

    def _closes(self, previous_task: str) -> bool:
        return self._before is not None and previous_task == self._task

    def _records(self, after: LiveSites) -> list[Record]:
        assert self._before is not None
        deltas = changed_sites(self._before, after, self._chosen)
        kind = WindowKind.PARTIAL if self._raised else WindowKind.COMPLETE
        return window_records(self._pid, kind, self._task, {"": deltas})

    def _rest(self, began_s: float) -> None:
        ended_s = self._clock_s()
        # An open window needs a second read, due or not: its rest is added.
        self._rest_until_s = max(self._rest_until_s, ended_s) + (ended_s - began_s) * _REST_FACTOR


class HeapDiff:
    """Reads the live heap every `interval_s`, between tasks."""

    def __init__(
        self,
        chosen: SiteFilter,
        interval_s: float,
        read: Callable[[], LiveSites] = live_sites,
        release: Callable[[], None] = give_back_free_memory,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chosen = chosen
        self._interval_s = interval_s
        self._read = read
        self._release = release
        self._clock_s = clock_s
        self._pid = os.getpid()
        self._tasks = 0
        self._baseline: LiveSites | None = None
        self._due_s = clock_s() + interval_s

    def task_starts(self) -> list[Record]:
        """The growth since the baseline, if it is due; the first time, the baseline is read.

        The process is warm after `WARM_UP_TASKS` tasks and one interval.
        """
        self._tasks += 1
        began_s = self._clock_s()
        if began_s < self._due_s or (self._baseline is None and self._tasks < WARM_UP_TASKS):
            return []
        found: list[Record] = []
        if self._baseline is None:
            self._baseline = self._read()
            self._tasks = 0
        else:
            deltas = changed_sites(self._baseline, self._read(), self._chosen)
            found = window_records(
                self._pid, WindowKind.PROCESS, "", {"": deltas}, runs=max(self._tasks, 1)
            )
        self._release()
        ended_s = self._clock_s()
        self._due_s = ended_s + max(self._interval_s, (ended_s - began_s) * _HEAP_REST_FACTOR)
        return found
