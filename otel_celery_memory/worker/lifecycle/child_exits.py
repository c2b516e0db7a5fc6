"""Exits of the pool's children and the tasks in flight in them, seen from the main process.

Celery's ``task_failure`` comes ten seconds after a child's death, and not at all if the child was
idle or the task is requeued. billiard calls ``on_process_down`` for each child that it reaps, and
starts the successor after that, so the child's task in flight is still on the control page. A
reporter that reads the page itself would be too late: a killed child is replaced faster than it
looks. A page with eight areas for each slot did not suffice either, under a storm of kills. A
successor that still finds a task there sends it too (`worker/measuring/in_flight.py`), and the
reporter ignores what it knows.

Each exit is sent until the ring accepts it. The last exits are kept for a reporter that is started
again, because its predecessor may have read them and exported nothing.

A child that gets SIGTERM ends in an orderly way, whoever sent the signal: only the main process
knows whether it was itself (`ProcessExited.reason`). billiard may take five seconds to reap such a
child. While the broker is away it reaps none, and the reporter reads the zombie's exit code from
``/proc``.

If a process dies in a task, nobody exports the task's span. The task's message is in the main
process, with its trace context and whether the broker had delivered it before, so the processes
that run tasks need to do nothing for it.
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
from otel_celery_memory.worker.record_writer import RecordSink

logger = logging.getLogger(__name__)

KEPT_MAX = 256
_ORDERLY = (EX_OK, EX_RECYCLE)
"""Exit codes of children that shut down or reached a per-child limit."""


class TaskMessage(NamedTuple):
    """What a task's message says.

    ``span`` is the span that sent it, `NO_SPAN` if that is in no sampled trace. ``redelivered`` is
    1 if the broker says that it had delivered the message before; not every broker does.
    """

    task_id: str = ""
    span: bytes = NO_SPAN
    redelivered: int = 0


class ChildMessages:
    """The message of the task that each child of the pool runs."""

    def __init__(self, requests: Iterable[Any] = state.active_requests) -> None:
        self._requests = requests
        self._known: dict[int, TaskMessage] = {}
        self._pool: Any = None
        self._ours: Callable[[Any, int], None] | None = None
        self._before: Callable[[Any, int], None] | None = None

    def follow(self, pool: Any) -> None:
        """Hooks into billiard's pool, to read the request of a child that died.

        Celery's pool removes the request before it reports the child's exit.
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
        """Restores the callback that was there before."""
        if self._pool is not None and self._pool.on_job_process_down is self._ours:
            self._pool.on_job_process_down = self._before
        self._pool = self._ours = self._before = None

    def remember(self, pids: Iterable[int]) -> None:
        """Remembers the tasks that these children run; called periodically.

        Celery removes the request of a revoked or overdue task long before its process ends.
        """
        running = self._running()
        self._known = {pid: self._of(pid, running) for pid in pids}

    def of(self, pid: int) -> TaskMessage:
        """The task that this process runs or, if it runs none, the last one remembered."""
        return self._of(pid, self._running())

    def _running(self) -> dict[int, Any]:
        return {request.worker_pid: request for request in list(self._requests)}

    def _of(self, pid: int, running: dict[int, Any]) -> TaskMessage:
        request, known = running.get(pid), self._known.get(pid, TaskMessage())
        if request is None or str(request.id) == known.task_id:
            return known
        span = message_span(request.request_dict)
        return TaskMessage(str(request.id), span, _redelivered(request))


def _redelivered(request: Any) -> int:
    delivery = getattr(request, "delivery_info", None)
    return int(isinstance(delivery, dict) and delivery.get("redelivered") is True)


def message_span(headers: dict[str, Any]) -> bytes:
    """The span in a message's headers, `NO_SPAN` if it is not sampled or cannot be read.

    Uses the propagators that are set for the process (``OTEL_PROPAGATORS``).
    """
    try:
        span = trace.get_current_span(propagate.extract(headers, Context()))
        context = span.get_span_context()
        return span_bytes(span) if context.is_valid and context.trace_flags.sampled else NO_SPAN
    except Exception:
        # Anybody can write headers: headers that cannot be read carry no trace context.
        logger.debug("otel_celery_memory: a trace context cannot be read", exc_info=True)
        return NO_SPAN


class ClearableInFlightTable(InFlightTable, Protocol):
    """The same, for the process that reaps the others."""

    def clear_in_flight(self, slot: int) -> None:
        """Removes the task in flight of this slot."""


@dataclass(frozen=True)
class ChildExit:
    """A child that was reaped, and its task in flight, if any."""

    exited: ProcessExited
    in_flight: TaskInFlightAtExit | None

    @property
    def orderly(self) -> bool:
        """Whether it ended by itself, with no task in flight."""
        return self.in_flight is None and self.exited.exit_code in _ORDERLY

    def send(self, sink: RecordSink) -> bool:
        """Sends both, the task first: the reporter may classify the exit as soon as it reads it."""
        return (self.in_flight is None or sink.send(self.in_flight)) and sink.send(self.exited)


class ChildExits:
    """Sends each exit, and keeps the latest ones and those that a full ring did not accept."""

    def __init__(self, sink: RecordSink, table: ClearableInFlightTable) -> None:
        self._sink = sink
        self._table = table
        self._lost: deque[ChildExit] = deque(maxlen=KEPT_MAX)
        # Separate, because recycled children are many.
        self._orderly: deque[ChildExit] = deque(maxlen=KEPT_MAX)
        self._unsent: deque[ChildExit] = deque(maxlen=KEPT_MAX)

    def record(self, exited: ProcessExited) -> None:
        """Sends the exit of a child that was reaped; must be called before its successor starts."""
        exited = exited._replace(idle=int(self._table.idle(exited.slot, exited.pid)))
        child_exit = ChildExit(exited, self._in_flight_of(exited))
        (self._orderly if child_exit.orderly else self._lost).append(child_exit)
        if not child_exit.send(self._sink):
            self._unsent.append(child_exit)
        elif child_exit.in_flight is not None:
            # Or a later process in this slot would send it once more.
            self._table.clear_in_flight(exited.slot)

    def retry_unsent(self) -> None:
        """Sends the exits that a full ring did not accept once more; called by one thread."""
        while self._unsent and self._unsent[0].send(self._sink):
            self._unsent.popleft()

    def since(self, time_ns: int) -> list[ChildExit]:
        """The exits of this time or later, among the latest ones."""
        kept = [*self._lost, *self._orderly]
        return [each for each in kept if each.exited.time_ns >= time_ns]

    def _in_flight_of(self, exited: ProcessExited) -> TaskInFlightAtExit | None:
        started = task_in_flight(self._table, exited.slot, exited.pid)
        return None if started is None else TaskInFlightAtExit(*started)


class ChildExitObserver:
    """Hooks into a billiard pool's ``on_process_down``, and sends each child's exit."""

    def __init__(self, exits: ChildExits, messages: ChildMessages | None = None) -> None:
        self.exits = exits
        self._messages = messages or ChildMessages()
        self._pool: Any = None
        self._ours: Callable[[Any], None] | None = None
        self._before: Callable[[Any], None] | None = None
        self._last_seen: object = None

    def follow(self, task_pool: Any) -> None:
        """Hooks into Celery's pool; to be called again, as a reconnect removes the hook."""
        pool = getattr(task_pool, "_pool", None)
        # Pools of threads and greenlets have no such thing.
        if pool is None or not hasattr(pool, "on_process_down"):
            return
        self._messages.follow(pool)
        before = pool.on_process_down
        if before is not None and before is self._ours:
            return

        def process_down(process: Any) -> None:
            # Other code may keep this function for good: it acts only until `release`.
            if self._pool is pool:
                self._record(process)
            if before is not None:
                before(process)

        # Each hook calls the one before it, so other hooks between two of ours are called too.
        self._pool, self._before, self._ours = pool, before, process_down
        pool.on_process_down = process_down

    def release(self) -> None:
        """Restores the callback that was there before."""
        if self._pool is not None and self._pool.on_process_down is self._ours:
            self._pool.on_process_down = self._before
        self._pool = self._ours = self._before = None
        self._messages.release()

    def children(self) -> list[tuple[int, int]]:
        """The pid and slot of each child in the pool now.

        billiard lists a process before it starts it (``Pool._create_worker_process``, 4.3.2), so
        that another thread may find one without a pid: it says itself that it is up.
        """
        processes = list(getattr(self._pool, "_pool", None) or [])
        return [
            (process.pid, int(getattr(process, "index", 0)))
            for process in processes
            if process.pid is not None
        ]

    def refresh_messages(self) -> None:
        """Remembers what the children run; called periodically."""
        if self._pool is not None:
            self._messages.remember([pid for pid, _ in self.children()])

    def _record(self, process: Any) -> None:
        if process is self._last_seen:
            return
        self._last_seen = process
        try:
            code = process.exitcode
            if code is not None:
                slot = int(getattr(process, "index", 0))
                ran = self._messages.of(process.pid)
                exited = ProcessExited(
                    process.pid,
                    time.time_ns(),
                    int(code),
                    slot,
                    0,  # `ChildExits.record` sets it
                    ran.redelivered,
                    ran.span,
                    _reason_of(process),
                    ran.task_id,
                )
                self.exits.record(exited)
        except Exception:
            logger.exception("otel_celery_memory: the exit of a child could not be recorded")


def _reason_of(process: Any) -> str:
    """Why the main process terminated a child by a signal; empty if it did not.

    billiard sets it on the process: ``terminate_job`` for a revoked task (or one that is
    cancelled because the broker was lost), ``terminate_controlled`` alone for a smaller pool.
    """
    if getattr(process, "_job_terminated", False):
        return ExitReason.TERMINATED.value
    if getattr(process, "_controlled_termination", False):
        return ExitReason.AUTOSCALE.value
    return ""
