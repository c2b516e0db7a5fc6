"""One process of a worker as its reporter knows it: its sizes, its tasks, its end. Pure."""

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

JUDGE_AFTER_NS = 1_000_000_000
"""How long all sides have to speak of a process that is gone."""
GIVE_UP_AFTER_NS = 6_000_000_000
"""How long to wait for the main process, which reaps a child when it gets to it."""
_IN_FLIGHT_MAX = 100


@dataclass
class ProcessState:
    """One process of the worker."""

    pid: int
    slot: int | None
    """``None`` until it is told: the first record that was read may be of a task."""
    rss_bytes: int | None = None
    rss_peak_bytes: int | None = None
    up_ns: int | None = None
    """When it was ready; ``None`` where nobody who is left has heard that."""
    tasks: int = 0
    """Tasks that it ran to their end, but for those nested in others."""
    in_flight: list[TaskStarted] = field(default_factory=list)
    last: TaskStarted | None = None
    last_finished: str = ""
    """The id of the task that ended last."""
    heap: HeapSampled | None = None
    down: ProcessDown | None = None
    terminated: bool = False
    """Whether its last task did not end by itself."""
    exit_code: int | None = None
    """As the main process tells it, which reaps its children and knows whom it ended itself."""
    idle: bool = False
    """Whether all that it ran has ended, as it said in the control page."""
    seen_exit_code: int | None = None
    """From outside, for want of it: a main process that waits for its broker reaps nobody."""
    wanted: str = ""
    """Why the main process ended it by a signal, as `ProcessExited` tells."""
    gone_ns: int | None = None
    finished_ns: int = 0
    """When the run began whose end was told last."""
    span: tuple[str, bytes] = ("", NO_SPAN)
    """A task's id and its span, or that which its message came from, where one was told."""
    switched_off: set[str] = field(default_factory=set)
    """Parts of ours that failed in it."""

    def saw_rss(self, rss_bytes: int) -> None:
        """Note a value of RSS, from a record or from outside."""
        self.rss_bytes = rss_bytes
        self.rss_peak_bytes = max(self.rss_peak_bytes or 0, rss_bytes)

    def saw_span(self, task_id: str, span: bytes) -> None:
        """Note the span of a task; its own, if it could tell that, is known by now."""
        if span != NO_SPAN and task_id != self.span[0]:
            self.span = (task_id, span)

    def span_of(self, task: TaskStarted | None) -> bytes:
        """The span of a task, where it is known."""
        return self.span[1] if task is not None and task.task_id == self.span[0] else NO_SPAN

    def started(self, record: TaskStarted) -> None:
        """It runs a task."""
        self.saw_rss(record.rss_bytes)
        if not record.nested:
            self.last = record
            # A child runs one task at a time: what was in flight there has ended untold.
            if self._is_child:
                self.in_flight.clear()
        self._runs(record, len(self.in_flight))

    def finished(self, record: TaskFinished) -> None:
        """A task of it has ended."""
        self.saw_rss(record.rss_start_bytes + record.rss_delta_bytes)
        if record.rss_peak_bytes is not None:
            self.rss_peak_bytes = max(
                self.rss_peak_bytes or 0, record.rss_start_bytes + record.rss_peak_bytes
            )
        self.terminated = record.state == TERMINATED
        if not record.nested:
            self.finished_ns = record.started_ns
        self.last_finished = record.task_id
        self.tasks += not record.nested
        if self.terminated and not (self.last and self.last.task_id == record.task_id):
            self.last = _start_of(record)
        if self.terminated:
            self.saw_span(record.task_id, record.span)
        if self.in_flight:
            self.in_flight = [task for task in self.in_flight if task.task_id != record.task_id]

    def held(self, record: TaskStarted) -> bool:
        """It holds this as the task that it runs; ``False`` where that is known already."""
        if record.time_ns <= self.finished_ns:
            return False
        if any(not task.nested and task.time_ns >= record.time_ns for task in self.in_flight):
            return False
        self.started(record)
        return True

    def is_running(self, record: TaskInFlight) -> None:
        """The main process says so, which may be behind: what it said itself is newer."""
        known = {task.task_id for task in self.in_flight} | {self.last_finished}
        outermost = [task for task in self.in_flight if not task.nested]
        if record.task_id in known or (self._is_child and outermost):
            return
        self.last = TaskStarted(*record[:2], 0, None, 0, record.task_id, record.task, "")
        # Before what runs inside it; a process is lost in the first.
        self._runs(self.last, len(outermost))

    def _runs(self, task: TaskStarted, place: int) -> None:
        self.idle = False
        self.in_flight.insert(place, task)
        del self.in_flight[:-_IN_FLIGHT_MAX]

    def captured(self) -> CapturedProcess:
        """As a capture that it takes part in tells of it."""
        return CapturedProcess(slot_name(self.slot), self.pid, self.rss_bytes)

    def snapshot(self, task: TaskStarted | None, now_ns: int) -> ProcessSnapshot:
        """As the events tell of it, with the task that it is or was running."""
        return ProcessSnapshot(
            slot=slot_name(self.slot),
            pid=self.pid,
            rss_bytes=self.rss_bytes,
            rss_peak_bytes=self.rss_peak_bytes,
            task=task.task if task else None,
            task_id=task.task_id if task else None,
            task_age_s=round((now_ns - task.time_ns) / 1e9, 3) if task else None,
            # Nothing, where a reporter that died was the only one to hear of its start.
            task_rss_start_bytes=task.rss_bytes or None if task else None,
        )

    @property
    def running(self) -> TaskStarted | None:
        """The task that it runs, or ran when it died."""
        # What it told of is in flight for ever where the pipe was full at its end.
        return self.in_flight[0] if self.in_flight and not self.idle else None

    @property
    def _is_child(self) -> bool:
        return self.slot not in (MAIN_SLOT, None)

    @property
    def judge_after_ns(self) -> int:
        """How long after it was gone its end is judged."""
        # A goodbye after a signal does not say whose it was: the main process knows.
        by_itself = self.down is not None and self.down.exit_code >= 0
        told = by_itself or self.exit_code is not None
        return JUDGE_AFTER_NS if told else GIVE_UP_AFTER_NS


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
