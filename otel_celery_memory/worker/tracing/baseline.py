"""Growth of a process's whole live heap since it was warm, where tracing is always on.

Windows see what the runs of tasks leave behind. What grows in threads or between tasks, or so
slowly that no single run shows it, is seen in the difference to a baseline.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from otel_celery_memory.ipc.records import Record, WindowKind
from otel_celery_memory.probes.allocators import give_back_free_memory
from otel_celery_memory.probes.sites import LiveSites, SiteFilter, changed_sites, live_sites
from otel_celery_memory.worker.tracing.site_records import window_records

WARM_UP_TASKS = 100
_HEAP_REST_FACTOR = 50
"""A look that took t seconds is followed by at least 50 t without one."""


class HeapBaseline:
    """Looks at the live heap every `interval_s`, between tasks."""

    def __init__(
        self,
        chosen: SiteFilter,
        interval_s: float,
        look: Callable[[], LiveSites] = live_sites,
        settle: Callable[[], None] = give_back_free_memory,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chosen = chosen
        self._interval_s = interval_s
        self._look = look
        self._settle = settle
        self._clock_s = clock_s
        self._pid = os.getpid()
        self._tasks = 0
        self._baseline: LiveSites | None = None
        self._due_s = clock_s() + interval_s

    def task_starts(self) -> list[Record]:
        """The growth since the baseline, when it is time; the first time, the baseline is made.

        The process is warm after `WARM_UP_TASKS` tasks and one interval.
        """
        self._tasks += 1
        began_s = self._clock_s()
        if began_s < self._due_s or (self._baseline is None and self._tasks < WARM_UP_TASKS):
            return []
        found: list[Record] = []
        if self._baseline is None:
            self._baseline = self._look()
            self._tasks = 0
        else:
            deltas = changed_sites(self._baseline, self._look(), self._chosen)
            found = window_records(
                self._pid, WindowKind.PROCESS, "", deltas, runs=max(self._tasks, 1)
            )
        self._settle()
        ended_s = self._clock_s()
        self._due_s = ended_s + max(self._interval_s, (ended_s - began_s) * _HEAP_REST_FACTOR)
        return found
