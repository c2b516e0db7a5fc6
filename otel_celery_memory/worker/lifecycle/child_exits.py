"""How the pool's children ended and what they ran, from the one who reaps them: the main process.

``task_failure`` tells of a dead child ten seconds late, and not at all of an idle one or where
the task is put back into the queue. billiard calls ``on_process_down`` for each as it reaps it, and
starts its successor after that: what the child held in the control page is still there. Each end is
told until the pipe takes it. The last ends are kept, for a reporter that is started again: the one
before it may have read of them and told nobody.

A task that takes its process with it takes its span too, which nobody sends then. Its message's
trace context is in the main process: the processes that run tasks do nothing for it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from billiard.pool import EX_OK, EX_RECYCLE
from celery.worker import state
from opentelemetry import propagate, trace
from opentelemetry.context import Context

from otel_celery_memory.ipc.codec import InFlightTable, task_in_flight
from otel_celery_memory.ipc.records import NO_SPAN, ExitReason, ProcessExited, TaskInFlightAtExit
from otel_celery_memory.worker.measuring.spans import span_bytes
from otel_celery_memory.worker.pipe import RecordSink

logger = logging.getLogger(__name__)

KEPT_MAX = 256
_ORDERLY = (EX_OK, EX_RECYCLE)
"""Exit codes of children that shut down, or reached a per-child limit."""


class TaskTraceContext(NamedTuple):
    """A task and the span that its message came from, `NO_SPAN` where it is in no sampled trace."""

    task_id: str = ""
    span: bytes = NO_SPAN


class ChildTraceContexts:
    """What each child of the pool runs; asked when one has ended."""

    def __init__(self, requests: Iterable[Any] = state.active_requests) -> None:
        self._requests = requests
        self._known: dict[int, TaskTraceContext] = {}
        self._pool: Any = None
        self._ours: Callable[[Any, int], None] | None = None
        self._before: Callable[[Any, int], None] | None = None

    def follow(self, pool: Any) -> None:
        """Be called by billiard's pool for the task of a child that is gone.

        Celery's pool strikes that task off before it tells of the child.
        """
        before = getattr(pool, "on_job_process_down", None)
        if before is None or before is self._ours:
            return

        def job_process_down(job: Any, pid: int) -> None:
            with contextlib.suppress(Exception):
                self._known[pid] = self.of(pid)
            before(job, pid)

        self._pool, self._before, self._ours = pool, before, job_process_down
        pool.on_job_process_down = job_process_down

    def release(self) -> None:
        """Put back what was there."""
        if self._pool is not None and self._pool.on_job_process_down is self._ours:
            self._pool.on_job_process_down = self._before
        self._pool = self._ours = self._before = None

    def remember(self, pids: Iterable[int]) -> None:
        """Remember what the pool's children run; called now and then.

        A task that is revoked or overdue is struck off long before its process has ended.
        """
        running = self._running()
        self._known = {pid: self._trace(pid, running) for pid in pids}

    def of(self, pid: int) -> TaskTraceContext:
        """What this process runs, or was last seen to."""
        return self._trace(pid, self._running())

    def _running(self) -> dict[int, Any]:
        return {request.worker_pid: request for request in list(self._requests)}

    def _trace(self, pid: int, running: dict[int, Any]) -> TaskTraceContext:
        request, known = running.get(pid), self._known.get(pid, TaskTraceContext())
        if request is None or str(request.id) == known.task_id:
            return known
        return TaskTraceContext(str(request.id), message_span(request.request_dict))


def message_span(headers: dict[str, Any]) -> bytes:
    """The span that a message names in its headers, where that is sampled.

    By the propagators that are set for the process (``OTEL_PROPAGATORS``).
    """
    try:
        span = trace.get_current_span(propagate.extract(headers, Context()))
        context = span.get_span_context()
        return span_bytes(span) if context.is_valid and context.trace_flags.sampled else NO_SPAN
    except Exception:
        # Headers are anybody's: what cannot be understood is no trace.
        logger.debug("otel_celery_memory: trace context not understood", exc_info=True)
        return NO_SPAN


class ClearableInFlightTable(InFlightTable, Protocol):
    """The same, for who reaps the processes."""

    def clear_in_flight(self, slot: int) -> None:
        """It holds nothing any more."""


@dataclass(frozen=True)
class ChildExit:
    """A child that was reaped, and the task that it held, if any."""

    exited: ProcessExited
    in_flight: TaskInFlightAtExit | None

    @property
    def orderly(self) -> bool:
        """Whether there is nothing to tell but that it ended."""
        return self.in_flight is None and self.exited.exit_code in _ORDERLY

    def send(self, sink: RecordSink) -> bool:
        """Send both, the task first: with its process's end it may be judged."""
        return (self.in_flight is None or sink.send(self.in_flight)) and sink.send(self.exited)


class ChildExits:
    """Tells of each end, and keeps what was told lately and what the pipe had no room for."""

    def __init__(self, sink: RecordSink, table: ClearableInFlightTable) -> None:
        self._sink = sink
        self._table = table
        self._lost: deque[ChildExit] = deque(maxlen=KEPT_MAX)
        # Apart: of children that are recycled all the time there are many.
        self._orderly: deque[ChildExit] = deque(maxlen=KEPT_MAX)
        self._unsent: deque[ChildExit] = deque(maxlen=KEPT_MAX)

    def record(self, exited: ProcessExited) -> None:
        """A child was reaped; called before its slot has another one, and looks at its place."""
        exited = exited._replace(idle=int(self._table.idle(exited.slot, exited.pid)))
        end = ChildExit(exited, self._in_flight_of(exited))
        (self._orderly if end.orderly else self._lost).append(end)
        if not end.send(self._sink):
            self._unsent.append(end)
        elif end.in_flight is not None:
            # Who is in this slot much later would take it for news.
            self._table.clear_in_flight(exited.slot)

    def retry_unsent(self) -> None:
        """Once more what a full pipe did not take; called by one thread."""
        while self._unsent and self._unsent[0].send(self._sink):
            self._unsent.popleft()

    def since(self, time_ns: int) -> list[ChildExit]:
        """The latest ends that were told at this time or later."""
        kept = [*self._lost, *self._orderly]
        return [end for end in kept if end.exited.time_ns >= time_ns]

    def _in_flight_of(self, exited: ProcessExited) -> TaskInFlightAtExit | None:
        held = task_in_flight(self._table, exited.slot, exited.pid)
        return None if held is None else TaskInFlightAtExit(*held)


class ChildExitObserver:
    """Stands before a billiard pool's ``on_process_down``."""

    def __init__(self, exits: ChildExits, traces: ChildTraceContexts | None = None) -> None:
        self.exits = exits
        self._traces = traces or ChildTraceContexts()
        self._pool: Any = None
        self._ours: Callable[[Any], None] | None = None
        self._before: Callable[[Any], None] | None = None
        self._last_seen: object = None

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
                self._record(process)
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

    def refresh_traces(self) -> None:
        """Now and then, at what the children run."""
        if self._pool is not None:
            self._traces.remember([pid for pid, _ in self.children()])

    def _record(self, process: Any) -> None:
        if process is self._last_seen:
            return
        self._last_seen = process
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
                self.exits.record(exited)
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
