"""What the main process looks at now and then: the reporter, the pool's children, the roll call.

A reporter that was started again has met nobody: it is told who is there and what they run.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from celery.worker import state

from otel_celery_memory.circuit_breaker import CircuitBreaker
from otel_celery_memory.ipc.records import MAIN_SLOT, PartFailed, ProcessUp, TaskInFlight
from otel_celery_memory.worker.lifecycle.child_exits import ChildExitObserver, ChildExits
from otel_celery_memory.worker.lifecycle.supervisor import CHECK_INTERVAL_S, Supervisor
from otel_celery_memory.worker.pipe import PipeWriter, RecordSink

UNACKNOWLEDGED_FOR_NS = 600_000_000_000
"""Ends that are older were told, or are on the way: a Collector may be away for that long."""
RESYNC_CHECKS = 3
"""Every so many checks the reporter is told who is there."""


def resync(
    sink: RecordSink,
    main_pid: int,
    children: Sequence[tuple[int, int]],
    exits: ChildExits,
    acknowledged: Collection[int],
) -> None:
    """For a reporter that was started again: who is there, who has ended, what they run.

    ``told`` are the processes whose ends the one before it has told: they are not told twice.
    """
    send_processes(sink, main_pid, children)
    recent = exits.since(time.time_ns() - UNACKNOWLEDGED_FOR_NS)
    unacknowledged = [end for end in recent if end.exited.pid not in acknowledged]
    for end in unacknowledged:
        end.send(sink)
    pids = {main_pid, *(pid for pid, _ in children), *(end.exited.pid for end in unacknowledged)}
    send_tasks_in_flight(sink, pids)


def send_processes(sink: RecordSink, main_pid: int, children: Sequence[tuple[int, int]]) -> None:
    """Tell the pid and slot of each process; any frame may have been dropped before."""
    now_ns = time.time_ns()
    sink.send(ProcessUp(main_pid, now_ns, MAIN_SLOT, 0))
    for pid, slot in children:
        sink.send(ProcessUp(pid, now_ns, slot, 0))


def send_tasks_in_flight(
    sink: RecordSink, pids: Iterable[int], requests: Iterable[Any] = state.active_requests
) -> None:
    """Tell the tasks that run in these processes.

    A reporter that died has read of their starts and told nobody.
    """
    known = set(pids)
    for request in list(requests):
        pid, started_s = request.worker_pid, request.time_start
        if pid in known and started_s:
            # Its name may be another one for people ("shadow"); its type is the task's.
            task = getattr(request, "type", None) or request.name
            sink.send(TaskInFlight(pid, int(started_s * 1e9), str(request.id), str(task)))


class PeriodicChecks:
    """Runs on the worker's own timer."""

    def __init__(
        self,
        worker: Any,
        pipe: PipeWriter,
        supervisor: Supervisor,
        exit_observer: ChildExitObserver,
    ) -> None:
        self._worker = worker
        self._pipe = pipe
        self._supervisor = supervisor
        self._exit_observer = exit_observer
        self._main_pid = os.getpid()
        self._timer: Any = None
        self._done = 0
        self._breaker = CircuitBreaker(on_switched_off=self._switched_off)

    def begin(self) -> None:
        """From now on, every `CHECK_INTERVAL_S`."""
        if self._timer is None:
            self._timer = self._worker.timer.call_repeatedly(CHECK_INTERVAL_S, self._check)

    def end(self) -> None:
        """No more; the timer may have ended before. A reporter that died is started once more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            with contextlib.suppress(Exception):
                timer.cancel()
        # What is in the pipe, and who has ended lately, would be told by nobody.
        if self._supervisor.restart_if_dead():
            self._resync()

    def follow_pool(self) -> None:
        """Hear of the pool's children as they are reaped; the pool may be a new one."""
        self._exit_observer.follow(self._worker.pool)

    def _check(self) -> None:
        if self._timer is None:
            return  # where the timer is a thread, this one may come after the end
        self._breaker.run("checks", self._look)

    def _switched_off(self, part: str) -> None:
        self._pipe.send(PartFailed(self._main_pid, time.time_ns(), MAIN_SLOT, part))

    def _look(self) -> None:
        self.follow_pool()
        self._exit_observer.refresh_traces()
        restarted = self._supervisor.check()
        self._exit_observer.exits.retry_unsent()
        self._done += 1
        if restarted:
            self._resync()
        elif self._done % RESYNC_CHECKS == 0:
            send_processes(self._pipe, self._main_pid, self._exit_observer.children())

    def _resync(self) -> None:
        pipe, exit_observer = self._pipe, self._exit_observer
        acknowledged = pipe.page.acknowledged_exits.pids()
        resync(pipe, self._main_pid, exit_observer.children(), exit_observer.exits, acknowledged)
