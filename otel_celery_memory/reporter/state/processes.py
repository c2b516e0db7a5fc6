"""The state of one process of a worker: its sizes, its tasks, its end. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_celery_memory.captures.model import CapturedProcess
from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    NO_SPAN,
    TERMINATED,
    HeapSampled,
    ProcessDown,
    TaskFinished,
    TaskInFlight,
    TaskStarted,
    slot_name,
)
from otel_celery_memory.telemetry.events import ProcessSnapshot

CLASSIFY_AFTER_NS = 1_000_000_000
"""An end is classified this long after it: records of it may still arrive."""
GIVE_UP_AFTER_NS = 6_000_000_000
"""Longest wait for the main process, which takes up to five seconds to reap a child."""
_IN_FLIGHT_MAX = 100


@dataclass
class ProcessState:
    """One process of the worker."""

    pid: int
    slot: int | None
    """``None`` until a record names it: the first record that is read may be of a task."""
    rss_bytes: int | None = None
    rss_peak_bytes: int | None = None
    run_peak_bytes: int | None = None
    """Highest RSS that was seen since its last run began; ``None`` if none was."""
    redelivered_id: str = ""
    """The id of a task whose message the broker had delivered before."""
    up_ns: int | None = None
    """When it was ready; ``None`` if only an earlier reporter read that record."""
    started_bytes: int | None = None
    """RSS when it was ready; ``None`` as ``up_ns``."""
    tasks: int = 0
    """Tasks that ended in it, without those nested in others."""
    in_flight: list[TaskStarted] = field(default_factory=list)
    last: TaskStarted | None = None
    last_finished: str = ""
    """The id of the task that ended last."""
    heap: HeapSampled | None = None
    collector: tuple[int, ...] = ()
    """What the garbage collector had done in it, as far as that was counted to its slot."""
    down: ProcessDown | None = None
    terminated: bool = False
    """Whether its last task was ended by the signal handler of the process."""
    exit_code: int | None = None
    """From the main process, which reaps its children."""
    idle: bool = False
    """Whether its slot on the control page says that all its tasks have ended."""
    proc_exit_code: int | None = None
    """From the zombie in ``/proc``: a main process that waits for its broker reaps no children."""
    main_reason: str = ""
    """Why the main process ended it by a signal (`ProcessExited.reason`); empty if it did not."""
    gone_ns: int | None = None
    finished_ns: int = 0
    """Start of the run that ended last."""
    span: tuple[str, bytes] = ("", NO_SPAN)
    """A task's id, and its span or that of its message's sender."""
    tasks_seen: set[str] = field(default_factory=set)
    """Tasks of which a run was known to have ended, by bounded names."""
    switched_off: set[str] = field(default_factory=set)
    """Parts of the instrumentation that failed in it."""

    def record_rss(self, rss_bytes: int) -> None:
        """Keeps a value of RSS, from a record or from ``/proc``, and the highest so far."""
        self.rss_bytes = rss_bytes
        self.record_peak(rss_bytes)

    def record_peak(self, peak_bytes: int) -> None:
        """Keeps a high-water mark that the process measured in its run."""
        if self.rss_peak_bytes is None or peak_bytes > self.rss_peak_bytes:
            self.rss_peak_bytes = max(peak_bytes, 0)
        if self.run_peak_bytes is None or peak_bytes > self.run_peak_bytes:
            self.run_peak_bytes = max(peak_bytes, 0)

    def run_peak_of(self, task: TaskStarted | None) -> int | None:
        """Highest RSS that was seen in its last run, above RSS at its start; ``None`` if unknown.

        At least this much: RSS is read now and then, and a killed run has no mark of its own.
        """
        if task is None or self.last is None or task.task_id != self.last.task_id:
            return None
        # Unknown if only an earlier reporter read the start.
        if not task.rss_bytes or self.run_peak_bytes is None:
            return None
        return max(self.run_peak_bytes - task.rss_bytes, 0)

    def record_span(self, task_id: str, span: bytes) -> None:
        """Keeps the span of a task, unless the task's own span is known already."""
        if span != NO_SPAN and task_id != self.span[0]:
            self.span = (task_id, span)

    def span_of(self, task: TaskStarted | None) -> bytes:
        """The span of a task; `NO_SPAN` if it is not known."""
        return self.span[1] if task is not None and task.task_id == self.span[0] else NO_SPAN

    def started(self, record: TaskStarted) -> None:
        """A task started in it."""
        self.record_rss(record.rss_bytes)
        if not record.nested:
            self.last = record
            self.run_peak_bytes = None
            # A child runs one task at a time: the end of the one before was dropped.
            if self._is_child:
                self.in_flight.clear()
        self._runs(record, len(self.in_flight))

    def finished(self, record: TaskFinished) -> None:
        """A task ended in it."""
        if not record.nested and not (self.last and self.last.task_id == record.task_id):
            self.run_peak_bytes = None  # its start was not read
        self.record_rss(record.rss_start_bytes + record.rss_delta_bytes)
        if record.rss_peak_bytes is not None:
            # Of a run that its process ended, this is the true one.
            self.record_peak(record.rss_start_bytes + record.rss_peak_bytes)
        self.terminated = record.state == TERMINATED
        if not record.nested:
            self.finished_ns = record.started_ns
        self.last_finished = record.task_id
        self.tasks += not record.nested
        if self.terminated and not (self.last and self.last.task_id == record.task_id):
            self.last = _start_of(record)
        if self.terminated:
            self.record_span(record.task_id, record.span)
        if self.in_flight:
            self.in_flight = [task for task in self.in_flight if task.task_id != record.task_id]

    def apply_in_flight(self, record: TaskStarted) -> bool:
        """Applies a start found in its in-flight slot; ``False`` if it was known already."""
        if record.time_ns <= self.finished_ns:
            return False
        if any(not task.nested and task.time_ns >= record.time_ns for task in self.in_flight):
            return False
        self.started(record)
        return True

    def is_running(self, record: TaskInFlight) -> None:
        """Applies the main process's word that it runs a task; its own records are newer."""
        known = {task.task_id for task in self.in_flight} | {self.last_finished}
        outermost = [task for task in self.in_flight if not task.nested]
        if record.task_id in known or (self._is_child and outermost):
            return
        self.last = TaskStarted(*record[:2], 0, None, 0, record.task_id, record.task, "")
        # Before nested tasks: the first one is the task that a lost process ran.
        self._runs(self.last, len(outermost))

    def _runs(self, task: TaskStarted, place: int) -> None:
        self.idle = False
        self.in_flight.insert(place, task)
        del self.in_flight[:-_IN_FLIGHT_MAX]

    def captured(self) -> CapturedProcess:
        """The process as a capture lists it."""
        return CapturedProcess(slot_name(self.slot), self.pid, self.rss_bytes)

    def snapshot(self, task: TaskStarted | None, now_ns: int) -> ProcessSnapshot:
        """The process as events describe it, with the task that it runs or ran."""
        return ProcessSnapshot(
            slot=slot_name(self.slot),
            pid=self.pid,
            rss_bytes=self.rss_bytes,
            rss_peak_bytes=self.rss_peak_bytes,
            task=task.task if task else None,
            task_id=task.task_id if task else None,
            task_age_s=round((now_ns - task.time_ns) / 1e9, 3) if task else None,
            # Unknown if only an earlier reporter read the start.
            task_rss_start_bytes=task.rss_bytes or None if task else None,
        )

    @property
    def running(self) -> TaskStarted | None:
        """The task that it runs, or ran when it died."""
        # If the ring was full, the end was dropped and the task stays in flight here.
        return self.in_flight[0] if self.in_flight and not self.idle else None

    @property
    def _is_child(self) -> bool:
        return self.slot not in (MAIN_SLOT, None)

    @property
    def classify_after_ns(self) -> int:
        """How long after it was gone its end is classified."""
        # A goodbye after a signal does not name the sender: only the main process knows. One after
        # ``sys.exit`` in a task comes a second before the exit, whose code the main process reads.
        by_itself = self.down is not None and self.down.exit_code >= 0 and not self.terminated
        known = by_itself or self.exit_code is not None
        return CLASSIFY_AFTER_NS if known else GIVE_UP_AFTER_NS


def _start_of(record: TaskFinished) -> TaskStarted:
    return TaskStarted(
        record.pid,
        record.started_ns,
        record.rss_start_bytes,
        None,
        record.nested,
        record.task_id,
        record.task,
        "",
    )
