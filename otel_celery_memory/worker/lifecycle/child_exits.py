"""How the pool's children ended, from the one who reaps them: the main process.

``task_failure`` tells of a dead child ten seconds late, and not at all of an idle one or where
the task is put back into the queue. billiard calls ``on_process_down`` for each as it reaps it, and
starts its successor after that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from otel_celery_memory.ipc.records import NO_SPAN, ExitReason, ProcessExited
from otel_celery_memory.worker.lifecycle.child_ends import ChildEnds
from otel_celery_memory.worker.lifecycle.trace_context import RunningTraces

logger = logging.getLogger(__name__)


class Reaper:
    """Stands before a billiard pool's ``on_process_down``."""

    def __init__(self, ends: ChildEnds, traces: RunningTraces | None = None) -> None:
        self.ends = ends
        self._traces = traces or RunningTraces()
        self._pool: Any = None
        self._ours: Callable[[Any], None] | None = None
        self._before: Callable[[Any], None] | None = None
        self._last_told: object = None

    def follow(self, task_pool: Any) -> None:
        """Be called for the children of Celery's pool; again after a reconnect undid that."""
        pool = getattr(task_pool, "_pool", None)
        # Pools of threads and greenlets have no such thing.
        if pool is None or not hasattr(pool, "on_process_down"):
            return
        self._traces.follow(pool)
        before = pool.on_process_down
        if before is not None and before is self._ours:
            return

        def process_down(process: Any) -> None:
            # Somebody may keep this one for good: we follow until we release.
            if self._pool is pool:
                self._tell(process)
            if before is not None:
                before(process)

        # Each has its own successor: somebody who stands between two of ours is passed through.
        self._pool, self._before, self._ours = pool, before, process_down
        pool.on_process_down = process_down

    def release(self) -> None:
        """Put back what was there."""
        if self._pool is not None and self._pool.on_process_down is self._ours:
            self._pool.on_process_down = self._before
        self._pool = self._ours = self._before = None
        self._traces.release()

    def children(self) -> list[tuple[int, int]]:
        """(pid, slot) of the pool's children now."""
        processes = getattr(self._pool, "_pool", None) or []
        return [(process.pid, int(getattr(process, "index", 0))) for process in processes]

    def look(self) -> None:
        """Now and then, at what the children run."""
        if self._pool is not None:
            self._traces.look([pid for pid, _ in self.children()])

    def _tell(self, process: Any) -> None:
        if process is self._last_told:
            return
        self._last_told = process
        try:
            code = process.exitcode
            if code is not None:
                slot = int(getattr(process, "index", 0))
                ran = self._traces.of(process.pid)
                exited = ProcessExited(
                    process.pid,
                    time.time_ns(),
                    int(code),
                    slot,
                    0,  # to be looked up
                    ran.span,
                    _wanted(process),
                    "" if ran.span == NO_SPAN else ran.task_id,
                )
                self.ends.tell(exited)
        except Exception:
            logger.exception("otel_celery_memory: the end of a child was not understood")


def _wanted(process: Any) -> str:
    """Why the main process ended a child by a signal; empty where it did not.

    billiard notes it on the process: ``terminate_job`` for a revoked task (or one that is
    cancelled because the broker was lost), ``terminate_controlled`` alone for a smaller pool.
    """
    if getattr(process, "_job_terminated", False):
        return ExitReason.TERMINATED.value
    if getattr(process, "_controlled_termination", False):
        return ExitReason.AUTOSCALE.value
    return ""
