"""The state of one worker, derived from its records: processes, tasks in flight, ends.

- **Ends are classified late.** Goodbye, exit code, time limit and the end of the pid come in any
  order and from three processes. `WorkerState.classify_ended` waits until enough is known. billiard
  reaps a child up to five seconds after it ended, and none while its broker is away: then the exit
  code of the zombie in ``/proc`` is used.
- **Records may come twice.** A reporter that is started again applies the records that no endpoint
  has acknowledged. Processes whose end is classified are not brought back by late records.
- **The control page knows more.** Each slot there has the start of the task in flight, sent or not,
  or says that nothing runs. `InFlightTasks` reads it. What is known already is dropped
  (`apply_in_flight`).
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
    MessagesHeld,
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
from otel_celery_memory.reporter.state.exits import OomKills, ProcessEnd, Worker, classify_end
from otel_celery_memory.reporter.state.processes import ProcessState
from otel_celery_memory.telemetry.metrics import in_64_bits

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_PROCESSES_MAX = 4_096
_OVERDUE_MAX = 1_024
_CLASSIFIED_MAX = 4_096


class WorkerState:
    """Follows the records of one worker; changed by one thread, others copy ``processes``."""

    def __init__(self, oom: OomKills | None = None) -> None:
        self.oom = oom or OomKills()
        self.processes: dict[int, ProcessState] = {}
        self.said_goodbye = False
        self.collector: dict[int, tuple[int, ...]] = {}
        """What the garbage collector did in the processes that each slot has had: the numbers of
        `HeapSampled`. They only rise."""
        self.messages: MessagesHeld | None = None
        """What the main process holds, as it sent last."""
        self._stopping = False
        self._overdue: dict[str, TaskOverdue] = {}
        self._classified: dict[int, None] = {}
        self._handlers: dict[type[Record], Callable[[Any], None]] = {
            TaskStarted: self._started,
            TaskFinished: self._finished,
            TaskInFlight: self._in_flight,
            ProcessUp: self._up,
            ProcessDown: self._down,
            HeapSampled: self._heap_sampled,
            MessagesHeld: self._messages_held,
            TaskOverdue: self._task_overdue,
            ProcessExited: self._exited,
            WorkerStopping: self._worker_stopping,
            Goodbye: self._goodbye,
            PartFailed: self._part_failed,
        }

    def apply(self, record: Record) -> None:
        """Applies one record; kinds that concern others are ignored."""
        handle = self._handlers.get(type(record))
        if handle is not None:
            handle(record)

    def _up(self, record: ProcessUp) -> None:
        if not record.rss_bytes and record.pid in self._classified:
            return  # sent by resync before its end was noticed
        process = self._process(record.pid)
        process.slot = record.slot
        if record.rss_bytes:
            process.up_ns, process.started_bytes = record.time_ns, record.rss_bytes
            process.record_rss(record.rss_bytes)

    def _down(self, record: ProcessDown) -> None:
        process = self._process(record.pid)
        process.slot = record.slot
        process.down = record
        if record.rss_bytes:
            process.record_rss(record.rss_bytes)

    def _heap_sampled(self, record: HeapSampled) -> None:
        process = self._process(record.pid)
        process.heap = record
        if process.slot is not None and None not in record.collector:
            self._count_collector(process, process.slot, record)

    def _count_collector(self, process: ProcessState, slot: int, record: HeapSampled) -> None:
        counts = tuple(in_64_bits(number or 0) for number in record.collector)
        # What an earlier reporter counted of this process is not known: from now on.
        before = process.collector or (counts if process.up_ns is None else (0,) * len(counts))
        process.collector = counts
        known = self.collector.get(slot, (0,) * len(counts))
        # A new tuple: others read it meanwhile.
        self.collector[slot] = tuple(
            in_64_bits(sum_ + max(now - then, 0))
            for sum_, now, then in zip(known, counts, before, strict=True)
        )

    def _messages_held(self, record: MessagesHeld) -> None:
        self.messages = record

    def _task_overdue(self, record: TaskOverdue) -> None:
        self._overdue[record.task_id] = record
        _trim(self._overdue, _OVERDUE_MAX)

    def _exited(self, record: ProcessExited) -> None:
        # After its end was classified it stays away; an unknown one only an earlier reporter knew.
        if record.pid in self._classified and record.pid not in self.processes:
            return
        process = self._process(record.pid)
        process.slot = record.slot if process.slot is None else process.slot
        process.exit_code = record.exit_code
        process.idle = process.idle or bool(record.idle)
        process.main_reason = record.reason
        process.record_span(record.task_id, record.span)
        if record.redelivered:
            process.redelivered_id = record.task_id

    def _worker_stopping(self, _: WorkerStopping) -> None:
        self._stopping = True

    def _goodbye(self, _: Goodbye) -> None:
        self.said_goodbye = self._stopping = True

    def _part_failed(self, record: PartFailed) -> None:
        if record.pid in self._classified and record.pid not in self.processes:
            return
        process = self._process(record.pid)
        process.slot = record.slot if process.slot is None else process.slot
        process.switched_off.add(record.part if record.part in c.PARTS else c.OTHER)

    def gone(self, pid: int, now_ns: int, exit_code: int | None = None) -> None:
        """A process has ended; ``exit_code`` is from ``/proc``, if it was still there."""
        process = self.processes.get(pid)
        if process is not None and process.gone_ns is None:
            process.gone_ns = now_ns
            process.proc_exit_code = exit_code

    def discard(self, pid: int) -> ProcessState | None:
        """Drops a process whose end was emitted before; later records of it are ignored."""
        self._classified[pid] = None
        return self.processes.pop(pid, None)

    def classify_ended(self, now_ns: int, *, all_now: bool = False) -> list[ProcessEnd]:
        """Classifies the processes that are gone and of which enough is known, each once.

        In the order in which they ended, the main process first, as its death is why its children
        died. ``all_now`` does not wait for more.
        """
        ended = [
            process
            for process in self.processes.values()
            if process.gone_ns is not None
            and (all_now or now_ns - process.gone_ns >= process.classify_after_ns)
        ]
        for process in ended:
            # Not the main process's: whether its parent has reaped it yet is chance.
            if process.exit_code is None and process.slot != MAIN_SLOT:
                process.exit_code = process.proc_exit_code
            del self.processes[process.pid]
            self._classified[process.pid] = None
        _trim(self._classified, _CLASSIFIED_MAX)
        worker = Worker(self._stopping, self.said_goodbye)
        # By size, as the kernel prefers a large victim: each may claim an OOM kill.
        by_size = sorted(ended, key=lambda each: (each.slot != MAIN_SLOT, -(each.rss_bytes or 0)))
        ends = {
            each.pid: classify_end(each, worker, self._was_overdue(each), self.oom)
            for each in by_size
        }
        ended.sort(key=lambda each: (each.slot != MAIN_SLOT, each.gone_ns))
        return [ends[each.pid] for each in ended]

    def _was_overdue(self, process: ProcessState) -> bool:
        last = process.last
        return last is not None and self._overdue.pop(last.task_id, None) is not None

    def is_first_run(self, pid: int, task: str) -> bool:
        """Whether what is known now of a run of this task is the first in its process."""
        process = self.processes.get(pid)
        if process is None or task in process.tasks_seen:
            return False
        process.tasks_seen.add(task)
        # Of a process that was there before this reporter nothing is known.
        return process.up_ns is not None

    def _started(self, record: TaskStarted) -> None:
        self._process(record.pid).started(record)

    def _finished(self, record: TaskFinished) -> None:
        self._process(record.pid).finished(record)

    def apply_in_flight(self, record: TaskStarted) -> bool:
        """Applies a start found in a process's in-flight slot; ``False`` if it was known."""
        if record.pid in self._classified and record.pid not in self.processes:
            return False
        # For a reporter that was started again this may be the first sign of the process.
        return self._process(record.pid).apply_in_flight(record)

    def _in_flight(self, record: TaskInFlight) -> None:
        if record.pid not in self._classified or record.pid in self.processes:
            self._process(record.pid).is_running(record)

    def _process(self, pid: int) -> ProcessState:
        process = self.processes.get(pid)
        if process is None:
            # An earlier reporter read its ProcessUp; resync names the slot soon.
            process = self.processes[pid] = ProcessState(pid, None)
            _trim(self.processes, _PROCESSES_MAX)
        return process


def _trim(bounded: dict[_Key, _Value], limit: int) -> None:
    """Removes the oldest entries beyond a limit."""
    for key in list(islice(bounded, max(len(bounded) - limit, 0))):
        del bounded[key]


class InFlightListener(Protocol):
    """Gets the tasks in flight that were found; the emitter."""

    state: WorkerState

    def task_in_flight(self, record: TaskStarted) -> None:
        """The start of a task was found in a process's in-flight slot."""


class InFlightTasks:
    """Reads the in-flight slots on the control page.

    A task that kills its process at once is known only from there: its start may not be sent.
    """

    def __init__(self, places: InFlightTable, listener: InFlightListener) -> None:
        self._places = places
        self._listener = listener

    def read(self) -> None:
        """Reads the slots of all processes."""
        for pid in list(self._listener.state.processes):
            self.read_process(pid)

    def read_process(self, pid: int) -> None:
        """Reads one process's slot; another process may have it by now."""
        process = self._listener.state.processes.get(pid)
        if process is None or process.slot is None:
            return
        if self._places.idle(process.slot, pid):
            process.idle = True
            return
        start = task_in_flight(self._places, process.slot, pid)
        if start is not None:
            self._listener.task_in_flight(start)
