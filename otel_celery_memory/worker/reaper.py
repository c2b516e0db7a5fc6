"""How the pool's children ended, from the one who reaps them: the main process.

``task_failure`` tells of a dead child ten seconds late, and not at all of an idle one or where
the task is put back into the queue. billiard calls ``on_process_down`` for each as it reaps it, and
starts its successor after that: what the child held in the control page is still there.

The last ends are kept, for a reporter that is started again: the one before it may have read of
them and told nobody.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from otel_celery_memory.frames import held_start
from otel_celery_memory.records import NO_SPAN, ExitReason, ProcessExited, TaskHeld
from otel_celery_memory.worker.sink import Sink
from otel_celery_memory.worker.traces import RunningTraces

logger = logging.getLogger(__name__)

_RECENT_MAX = 256


@dataclass(frozen=True)
class ChildEnd:
    """A child that was reaped, and the task that it held, if any."""

    exited: ProcessExited
    held: TaskHeld | None

    def tell(self, sink: Sink) -> None:
        """Send both, the task first: with its process's end it may be judged."""
        if self.held is not None:
            sink.send(self.held)
        sink.send(self.exited)


class Reaper:
    """Stands before a billiard pool's ``on_process_down``."""

    def __init__(
        self, sink: Sink, held: Callable[[int], bytes], traces: RunningTraces | None = None
    ) -> None:
        """``held`` gives what the process in a slot holds in the control page."""
        self._sink = sink
        self._held = held
        self._traces = traces or RunningTraces()
        self._pool: Any = None
        self._ours: Callable[[Any], None] | None = None
        self._before: Callable[[Any], None] | None = None
        self._last_told: object = None
        self._recent: deque[ChildEnd] = deque(maxlen=_RECENT_MAX)

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

    def ends_since(self, time_ns: int) -> list[ChildEnd]:
        """The latest ends that were told at this time or later."""
        return [end for end in self._recent if end.exited.time_ns >= time_ns]

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
                    ran.span,
                    _wanted(process),
                    "" if ran.span == NO_SPAN else ran.task_id,
                )
                end = ChildEnd(exited, self._held_by(process.pid, slot))
                self._recent.append(end)
                end.tell(self._sink)
        except Exception:
            logger.exception("otel_celery_memory: the end of a child was not understood")

    def _held_by(self, pid: int, slot: int) -> TaskHeld | None:
        held = held_start(self._held(slot))
        return TaskHeld(*held) if held is not None and held.pid == pid else None


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
