"""Who is there and what they run, as the main process knows it: for a reporter that met nobody."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from celery.worker import state

from otel_celery_memory.ipc.records import MAIN_SLOT, ProcessUp, TaskInFlight
from otel_celery_memory.worker.lifecycle.child_ends import ChildEnds
from otel_celery_memory.worker.sink import Sink

UNTOLD_FOR_NS = 600_000_000_000
"""Ends that are older were told, or are on the way: a Collector may be away for that long."""


def tell_again(
    sink: Sink,
    main_pid: int,
    children: Sequence[tuple[int, int]],
    ends: ChildEnds,
    told: Collection[int],
) -> None:
    """For a reporter that was started again: who is there, who has ended, what they run.

    ``told`` are the processes whose ends the one before it has told: they are not told twice.
    """
    call_roll(sink, main_pid, children)
    recent = ends.since(time.time_ns() - UNTOLD_FOR_NS)
    untold = [end for end in recent if end.exited.pid not in told]
    for end in untold:
        end.tell(sink)
    pids = {main_pid, *(pid for pid, _ in children), *(end.exited.pid for end in untold)}
    tell_tasks(sink, pids)


def call_roll(sink: Sink, main_pid: int, children: Sequence[tuple[int, int]]) -> None:
    """Tell the pid and slot of each process; any frame may have been dropped before."""
    now_ns = time.time_ns()
    sink.send(ProcessUp(main_pid, now_ns, MAIN_SLOT, 0))
    for pid, slot in children:
        sink.send(ProcessUp(pid, now_ns, slot, 0))


def tell_tasks(
    sink: Sink, pids: Iterable[int], requests: Iterable[Any] = state.active_requests
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
