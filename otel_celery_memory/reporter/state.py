"""The state of one worker as its records tell it: processes, tasks in flight, how each ended.

Pure: no clock of its own, no files, no processes. What was seen of a process's end comes from
three sides, its own goodbye, the main process and its pid's disappearance, in any order; so an
end is judged a little later, when all had time to speak.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from otel_celery_memory.records import (
    MAIN_SLOT,
    ExitReason,
    Goodbye,
    HeapSampled,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    Record,
    TaskFinished,
    TaskOverdue,
    TaskStarted,
)

JUDGE_AFTER_NS = 1_000_000_000
"""How long all sides have to speak of a process that is gone."""
GIVE_UP_AFTER_NS = 6_000_000_000
"""How long to wait for the main process, which reaps a child when it gets to it."""
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_PROCESSES_MAX = 4_096
_OVERDUE_MAX = 1_024
_CRASH_SIGNALS = frozenset((4, 6, 7, 8, 11))
"""SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV: the process's own doing."""


@dataclass
class ProcessState:
    """One process of the worker."""

    pid: int
    slot: int
    rss_bytes: int | None = None
    rss_peak_bytes: int | None = None
    in_flight: list[TaskStarted] = field(default_factory=list)
    last_task_id: str = ""
    heap: HeapSampled | None = None
    down: ProcessDown | None = None
    exit_code: int | None = None
    gone_ns: int | None = None

    def saw_rss(self, rss_bytes: int) -> None:
        """Note a value of RSS, from a record or from outside."""
        self.rss_bytes = rss_bytes
        self.rss_peak_bytes = max(self.rss_peak_bytes or 0, rss_bytes)

    @property
    def judge_after_ns(self) -> int:
        """How long after it was gone its end is judged."""
        told = self.down is not None or self.exit_code is not None
        return JUDGE_AFTER_NS if told else GIVE_UP_AFTER_NS


@dataclass(frozen=True)
class ProcessEnd:
    """How a process ended; ``task`` is what it was running, where it did not end by itself."""

    process: ProcessState
    reason: ExitReason
    signal: int | None
    task: TaskStarted | None
    time_ns: int

    @property
    def lost(self) -> bool:
        """Whether it ended otherwise than by shutdown or recycling."""
        return self.reason in (ExitReason.KILLED, ExitReason.CRASHED, ExitReason.TIME_LIMIT)


class WorkerState:
    """Follows the records of one worker; changed by one thread, others copy ``processes``."""

    def __init__(self) -> None:
        self.processes: dict[int, ProcessState] = {}
        self.said_goodbye = False
        self._overdue: dict[str, TaskOverdue] = {}

    def apply(self, record: Record) -> None:
        """Take in one record."""
        if isinstance(record, TaskStarted):
            process = self._process(record.pid)
            process.saw_rss(record.rss_bytes)
            if not record.nested:
                process.in_flight.clear()
            if len(process.in_flight) < 100:
                process.in_flight.append(record)
        elif isinstance(record, TaskFinished):
            self._finished(record)
        elif isinstance(record, ProcessUp):
            process = self._process(record.pid)
            process.slot = record.slot
            if record.rss_bytes:
                process.saw_rss(record.rss_bytes)
        elif isinstance(record, ProcessDown):
            process = self._process(record.pid)
            process.slot = record.slot
            process.down = record
            if record.rss_bytes:
                process.saw_rss(record.rss_bytes)
        elif isinstance(record, HeapSampled):
            self._process(record.pid).heap = record
        elif isinstance(record, TaskOverdue):
            self._overdue[record.task_id] = record
            _trim(self._overdue, _OVERDUE_MAX)
        elif isinstance(record, ProcessExited):
            self._process(record.pid).exit_code = record.exit_code
        elif isinstance(record, Goodbye):
            self.said_goodbye = True

    def gone(self, pid: int, now_ns: int) -> None:
        """A process's pid has disappeared."""
        process = self.processes.get(pid)
        if process is not None and process.gone_ns is None:
            process.gone_ns = now_ns

    def judge(self, now_ns: int, *, all_now: bool = False) -> list[ProcessEnd]:
        """The ends of processes that are gone and of which enough is known; each is told once."""
        ended = [
            process
            for process in self.processes.values()
            if process.gone_ns is not None
            and (all_now or now_ns - process.gone_ns >= process.judge_after_ns)
        ]
        for process in ended:
            del self.processes[process.pid]
        return [self._end_of(process) for process in ended]

    def _end_of(self, process: ProcessState) -> ProcessEnd:
        assert process.gone_ns is not None
        task = process.in_flight[0] if process.in_flight else None
        if self._overdue.pop(task.task_id if task else process.last_task_id, None) is not None:
            # The child begins its goodbye before the SIGKILL comes.
            return ProcessEnd(process, ExitReason.TIME_LIMIT, None, task, process.gone_ns)
        if process.down is not None:
            reason = ExitReason(process.down.reason)
            return ProcessEnd(process, reason, None, None, process.gone_ns)
        if process.slot == MAIN_SLOT and self.said_goodbye:
            return ProcessEnd(process, ExitReason.SHUTDOWN, None, None, process.gone_ns)
        return ProcessEnd(process, *_unannounced(process.exit_code), task, process.gone_ns)

    def _finished(self, record: TaskFinished) -> None:
        process = self._process(record.pid)
        process.saw_rss(record.rss_start_bytes + record.rss_delta_bytes)
        if record.rss_peak_bytes is not None:
            process.rss_peak_bytes = max(
                process.rss_peak_bytes or 0, record.rss_start_bytes + record.rss_peak_bytes
            )
        process.last_task_id = record.task_id
        process.in_flight = [
            started for started in process.in_flight if started.task_id != record.task_id
        ]

    def _process(self, pid: int) -> ProcessState:
        process = self.processes.get(pid)
        if process is None:
            # Its ProcessUp went to a reporter that died; the slot is told again soon.
            process = self.processes[pid] = ProcessState(pid, MAIN_SLOT)
            _trim(self.processes, _PROCESSES_MAX)
        return process


def _unannounced(exit_code: int | None) -> tuple[ExitReason, int | None]:
    """Reason and signal of an end without goodbye, by the exit code, if it is known."""
    if exit_code is None:
        return ExitReason.KILLED, None
    if exit_code >= 0:
        return ExitReason.CRASHED, None
    crashed = -exit_code in _CRASH_SIGNALS
    return (ExitReason.CRASHED if crashed else ExitReason.KILLED), -exit_code


def _trim(bounded: dict[_Key, _Value], limit: int) -> None:
    """Forget the oldest entries beyond a limit."""
    for key in list(islice(bounded, max(len(bounded) - limit, 0))):
        del bounded[key]
