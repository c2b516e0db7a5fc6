"""What the main process checks periodically: the reporter, the pool's children, and resync.

A reporter that was started again knows no processes, and any frame may be dropped. So the main
process sends the pid and slot of each process every few seconds, and after a restart also what they
run and which have just ended.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from celery.worker import state

from otel_celery_memory.circuit_breaker import CircuitBreaker
from otel_celery_memory.ipc.records import MAIN_SLOT, PartFailed, ProcessUp, TaskInFlight
from otel_celery_memory.worker.lifecycle.child_exits import ChildExitObserver, ChildExits
from otel_celery_memory.worker.lifecycle.held_messages import read_messages_held
from otel_celery_memory.worker.lifecycle.supervisor import CHECK_INTERVAL_S, Supervisor
from otel_celery_memory.worker.record_writer import RecordSink, RecordWriter

UNACKNOWLEDGED_FOR_NS = 600_000_000_000
"""Older exits are not sent again; a Collector may be unreachable for that long."""
RESYNC_CHECKS = 3
"""Every so many checks the processes are sent, and how many messages the main process holds."""


def resync(
    sink: RecordSink,
    main_pid: int,
    children: Sequence[tuple[int, int]],
    exits: ChildExits,
    acknowledged: Collection[int],
) -> None:
    """Sends the processes, the recent exits and the tasks in flight, after a reporter's restart.

    ``acknowledged`` are the pids whose exits its predecessor exported: they are not sent again.
    """
    send_processes(sink, main_pid, children)
    recent = exits.since(time.time_ns() - UNACKNOWLEDGED_FOR_NS)
    unacknowledged = [each for each in recent if each.exited.pid not in acknowledged]
    for child_exit in unacknowledged:
        child_exit.send(sink)
    pids = {main_pid, *(pid for pid, _ in children), *(each.exited.pid for each in unacknowledged)}
    send_tasks_in_flight(sink, pids)


def send_processes(sink: RecordSink, main_pid: int, children: Sequence[tuple[int, int]]) -> None:
    """Sends the pid and slot of each process; any earlier frame may have been dropped."""
    now_ns = time.time_ns()
    sink.send(ProcessUp(main_pid, now_ns, MAIN_SLOT, 0))
    for pid, slot in children:
        sink.send(ProcessUp(pid, now_ns, slot, 0))


def send_tasks_in_flight(
    sink: RecordSink, pids: Iterable[int], requests: Iterable[Any] = state.active_requests
) -> None:
    """Sends the tasks that run in these processes.

    A reporter that died may have read their starts and exported nothing.
    """
    known = set(pids)
    for request in list(requests):
        pid, started_s = request.worker_pid, request.time_start
        if pid in known and started_s:
            # Its name may be replaced for display ("shadow"); its type is the task's name.
            task = getattr(request, "type", None) or request.name
            sink.send(TaskInFlight(pid, int(started_s * 1e9), str(request.id), str(task)))


class PeriodicChecks:
    """Runs the checks on the worker's own timer."""

    def __init__(
        self,
        worker: Any,
        writer: RecordWriter,
        supervisor: Supervisor,
        exit_observer: ChildExitObserver,
        confirm_suspicion: Callable[[], None],
        send_event: Callable[[], None],
    ) -> None:
        """``confirm_suspicion`` orders what the reporter wants to know of a suspected leak.

        ``send_event`` tells consumers of Celery's events, if it is time.
        """
        self._worker = worker
        self._writer = writer
        self._supervisor = supervisor
        self._exit_observer = exit_observer
        self._confirm_suspicion = confirm_suspicion
        self._send_event = send_event
        self._main_pid = os.getpid()
        self._timer: Any = None
        self._done = 0
        self._breaker = CircuitBreaker(on_switched_off=self._switched_off)

    def begin(self) -> None:
        """Starts a check every `CHECK_INTERVAL_S`."""
        if self._timer is None:
            self._timer = self._worker.timer.call_repeatedly(CHECK_INTERVAL_S, self._check)

    def end(self) -> None:
        """Stops the checks. A reporter that died is started once more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            with contextlib.suppress(Exception):
                timer.cancel()
        # Or nobody would export what is in the rings and the latest exits.
        if self._supervisor.restart_if_dead():
            self._resync()

    def follow_pool(self) -> None:
        """Observes the exits of the pool's children; the pool may be a new one."""
        self._exit_observer.follow(self._worker.pool)

    def _check(self) -> None:
        if self._timer is None:
            return  # a timer that is a thread may call once more after `end`
        self._done += 1
        self._breaker.run("checks", self._run_checks)
        self._breaker.run("census", self._confirm_suspicion)
        self._breaker.run("worker_events", self._send_event)
        if self._done % RESYNC_CHECKS == 0:
            self._breaker.run("messages", self._send_messages)

    def _switched_off(self, part: str) -> None:
        self._writer.send(PartFailed(self._main_pid, time.time_ns(), MAIN_SLOT, part))

    def _run_checks(self) -> None:
        self.follow_pool()
        self._exit_observer.refresh_messages()
        restarted = self._supervisor.check()
        self._exit_observer.exits.retry_unsent()
        if restarted:
            self._resync()
        elif self._done % RESYNC_CHECKS == 0:
            send_processes(self._writer, self._main_pid, self._exit_observer.children())

    def _send_messages(self) -> None:
        self._writer.send(read_messages_held(self._worker, self._main_pid))

    def _resync(self) -> None:
        writer, exit_observer = self._writer, self._exit_observer
        acknowledged = writer.page.acknowledged_exits.pids()
        resync(writer, self._main_pid, exit_observer.children(), exit_observer.exits, acknowledged)
