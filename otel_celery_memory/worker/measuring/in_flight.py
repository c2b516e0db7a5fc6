"""The task that a pool child runs, kept in the control page, where it outlives the child.

What was only sent may get lost: the reporter may die too, or the ring be full. The main process
reads a child's place in the page when it reaps the child (`child_exits.py`). Where it did not, the
next process in the slot sends what it finds there, before its own tasks overwrite it.
"""

from __future__ import annotations

import os

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.codec import decode_in_flight, encode
from otel_celery_memory.ipc.control_page import IDLE, IN_FLIGHT_BYTES, UNKNOWN, has_in_flight_area
from otel_celery_memory.ipc.records import TaskInFlightAtExit, TaskStarted
from otel_celery_memory.worker.record_writer import RecordSink, RecordWriter

_CLIPPED_NAME_BYTES = 128
"""Length of a task name that does not fit: what is left beside the longest id."""


class InFlightSlot:
    """One slot's place in the control page."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer
        self._pid = os.getpid()
        self.place = writer.page.in_flight_area(writer.slot)
        """The page, and the offset of the `IN_FLIGHT_BYTES` that a frame may take there."""

    def send_predecessor(self) -> None:
        """Send what the previous process in this slot was running when it died, and take the slot.

        The place is empty where the main process has sent that already.
        """
        held = self._held()
        if held is not None and held.pid != self._pid:
            self.writer.send(TaskInFlightAtExit(*held))
        self.writer.page.claim(self.writer.slot, self._pid)

    def send(self, started: TaskStarted) -> None:
        """Send a start, and keep it in the page for a reporter that does not receive it.

        What it says of the run before is sent only: once is enough.
        """
        # Kept first: after a start was sent, the page never says that nothing runs.
        page, at = self.place
        frame = _frame(started._replace(retained_bytes=None, previous_task=""))
        page[at : at + len(frame)] = frame
        self.writer.send(started)

    def ended(self, task_id: str, *, idle: bool) -> None:
        """The end of this task was sent; ``idle``: no signal ended it, and nothing else runs."""
        page, at = self.place
        if idle:
            page[at] = IDLE
        else:
            self.forget(task_id)

    def forget(self, task_id: str) -> bool:
        """Remove this task from the page, but not another one; whether it was there."""
        held = self._held()
        if held is None or held.task_id != task_id:
            return False
        self.give_up()
        return True

    def give_up(self) -> None:
        """From here on it is not known what runs."""
        page, at = self.place
        page[at] = UNKNOWN

    def may_run(self) -> None:
        """A task may have started that is not in the page."""
        page, at = self.place
        if page[at] == IDLE:
            page[at] = UNKNOWN

    def _held(self) -> TaskStarted | None:
        return decode_in_flight(self.writer.page.in_flight(self.writer.slot))


def open_in_flight_slot(slot: int, sink: RecordSink) -> InFlightSlot | None:
    """The place of this process, if it has one of its own: the first 510 pool children do."""
    return (
        InFlightSlot(sink) if has_in_flight_area(slot) and isinstance(sink, RecordWriter) else None
    )


def _frame(started: TaskStarted) -> bytes:
    """The frame to keep of a start; a long name is clipped to the room there is."""
    try:
        frame = encode(started)
        if len(frame) > IN_FLIGHT_BYTES:
            name = started.task.encode("utf-8", "replace")[:_CLIPPED_NAME_BYTES]
            frame = encode(started._replace(task=name.decode("utf-8", "ignore")))
    except SoftTimeLimitExceeded:
        raise  # the task's time limit, which happened to hit us
    except Exception:
        return bytes((UNKNOWN,))  # it cannot be sent either, which is counted
    return frame
