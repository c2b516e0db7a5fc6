"""The state of one worker as its records tell it: processes, tasks in flight, how each ended.

What processes run is also in the control page: starts that were not sent, and that nothing runs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol, TypeVar

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.codec import InFlightTable, task_in_flight
from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    Goodbye,
    HeapSampled,
    PartFailed,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    Record,
    TaskFinished,
    TaskInFlight,
    TaskOverdue,
    TaskStarted,
    WorkerStopping,
)
from otel_celery_memory.reporter.state.exits import OomKills, ProcessEnd, Worker, end_of
from otel_celery_memory.reporter.state.processes import ProcessState

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_PROCESSES_MAX = 4_096
_OVERDUE_MAX = 1_024
_JUDGED_MAX = 4_096


class WorkerState:
    """Follows the records of one worker; changed by one thread, others copy ``processes``."""

    def __init__(self, oom: OomKills | None = None) -> None:
        self.oom = oom or OomKills()
        self.processes: dict[int, ProcessState] = {}
        self.said_goodbye = False
        self._stopping = False
        self._overdue: dict[str, TaskOverdue] = {}
        self._judged: dict[int, None] = {}
        self._takers: dict[type[Record], Callable[[Any], None]] = {
            TaskStarted: self._started,
            TaskFinished: self._finished,
            TaskInFlight: self._in_flight,
            ProcessUp: self._up,
            ProcessDown: self._down,
            HeapSampled: self._heap_sampled,
            TaskOverdue: self._task_overdue,
            ProcessExited: self._exited,
            WorkerStopping: self._worker_stopping,
            Goodbye: self._goodbye,
            PartFailed: self._part_failed,
        }

    def apply(self, record: Record) -> None:
        """Take in one record."""
        take = self._takers.get(type(record))
        if take is not None:
            take(record)

    def _up(self, record: ProcessUp) -> None:
        if not record.rss_bytes and record.pid in self._judged:
            return  # a roll call that was written before its end was noticed
        process = self._process(record.pid)
        process.slot = record.slot
        if record.rss_bytes:
            process.up_ns = record.time_ns
            process.saw_rss(record.rss_bytes)

    def _down(self, record: ProcessDown) -> None:
        process = self._process(record.pid)
        process.slot = record.slot
        process.down = record
        if record.rss_bytes:
            process.saw_rss(record.rss_bytes)

    def _heap_sampled(self, record: HeapSampled) -> None:
        self._process(record.pid).heap = record

    def _task_overdue(self, record: TaskOverdue) -> None:
        self._overdue[record.task_id] = record
        _trim(self._overdue, _OVERDUE_MAX)

    def _exited(self, record: ProcessExited) -> None:
        # Judged already, it does not come back; unknown, only a reporter that died had met it.
        if record.pid in self._judged and record.pid not in self.processes:
            return
        process = self._process(record.pid)
        process.slot = record.slot if process.slot is None else process.slot
        process.exit_code = record.exit_code
        process.idle = process.idle or bool(record.idle)
        process.wanted = record.reason
        process.saw_span(record.task_id, record.span)

    def _worker_stopping(self, _: WorkerStopping) -> None:
        self._stopping = True

    def _goodbye(self, _: Goodbye) -> None:
        self.said_goodbye = self._stopping = True

    def _part_failed(self, record: PartFailed) -> None:
        if record.pid in self._judged and record.pid not in self.processes:
            return
        process = self._process(record.pid)
        process.slot = record.slot if process.slot is None else process.slot
        process.switched_off.add(record.part if record.part in c.PARTS else c.OTHER)

    def gone(self, pid: int, now_ns: int, exit_code: int | None = None) -> None:
        """A process has ended; with its exit code where that could be seen."""
        process = self.processes.get(pid)
        if process is not None and process.gone_ns is None:
            process.gone_ns = now_ns
            process.seen_exit_code = exit_code

    def forget(self, pid: int) -> ProcessState | None:
        """The end of this process was told: what comes of it late is no news."""
        self._judged[pid] = None
        return self.processes.pop(pid, None)

    def judge(self, now_ns: int, *, all_now: bool = False) -> list[ProcessEnd]:
        """The ends of processes that are gone and of which enough is known; each is told once."""
        ended = [
            process
            for process in self.processes.values()
            if process.gone_ns is not None
            and (all_now or now_ns - process.gone_ns >= process.judge_after_ns)
        ]
        for process in ended:
            # Whoever started the main process reaps it at once, or not: it would be told by chance.
            if process.exit_code is None and process.slot != MAIN_SLOT:
                process.exit_code = process.seen_exit_code
            del self.processes[process.pid]
            self._judged[process.pid] = None
        _trim(self._judged, _JUDGED_MAX)
        # The main process's death is why its children died, and a large process is the victim
        # that the kernel prefers.
        ended.sort(key=lambda each: (each.slot != MAIN_SLOT, -(each.rss_bytes or 0)))
        worker = Worker(self._stopping, self.said_goodbye)
        return [end_of(each, worker, self._was_overdue(each), self.oom) for each in ended]

    def _was_overdue(self, process: ProcessState) -> bool:
        last = process.last
        return last is not None and self._overdue.pop(last.task_id, None) is not None

    def _started(self, record: TaskStarted) -> None:
        self._process(record.pid).started(record)

    def _finished(self, record: TaskFinished) -> None:
        self._process(record.pid).finished(record)

    def held(self, record: TaskStarted) -> bool:
        """A process holds this as the task that it runs; ``False`` where that is known already."""
        if record.pid in self._judged and record.pid not in self.processes:
            return False
        # A reporter that was started again may hear of it by this alone.
        return self._process(record.pid).held(record)

    def _in_flight(self, record: TaskInFlight) -> None:
        if record.pid not in self._judged or record.pid in self.processes:
            self._process(record.pid).is_running(record)

    def _process(self, pid: int) -> ProcessState:
        process = self.processes.get(pid)
        if process is None:
            # Its ProcessUp went to a reporter that died; the slot is told again soon.
            process = self.processes[pid] = ProcessState(pid, None)
            _trim(self.processes, _PROCESSES_MAX)
        return process


def _trim(bounded: dict[_Key, _Value], limit: int) -> None:
    """Forget the oldest entries beyond a limit."""
    for key in list(islice(bounded, max(len(bounded) - limit, 0))):
        del bounded[key]


class Holder(Protocol):
    """Who is told."""

    state: WorkerState

    def holds(self, record: TaskStarted) -> None:
        """A process holds the start of its task in the control page."""


class InFlightTasks:
    """Looks at what the processes hold: a task that killed its process is known by that alone."""

    def __init__(self, places: InFlightTable, holder: Holder) -> None:
        self._places = places
        self._holder = holder

    def look(self) -> None:
        """At all processes that run."""
        for pid in list(self._holder.state.processes):
            self.look_at(pid)

    def look_at(self, pid: int) -> None:
        """At one process; it may be gone, and another one have its slot."""
        process = self._holder.state.processes.get(pid)
        if process is None or process.slot is None:
            return
        if self._places.idle(process.slot, pid):
            process.idle = True
            return
        held = task_in_flight(self._places, process.slot, pid)
        if held is not None:
            self._holder.holds(held)
