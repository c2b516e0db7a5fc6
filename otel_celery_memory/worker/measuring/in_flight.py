"""The task that a child of the pool runs, held in the control page: there it outlives the child.

A reporter may die too, or the pipe be full: what was only sent is known to nobody then. The main
process takes what a child held when it reaps it (`child_exits.py`). Where it did not, whoever has
the slot next passes on what it finds, before its own tasks are written over it.
"""

from __future__ import annotations

import os

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.codec import decode_in_flight, encode
from otel_celery_memory.ipc.control_page import IDLE, IN_FLIGHT_BYTES, UNKNOWN, has_in_flight_area
from otel_celery_memory.ipc.records import TaskInFlightAtExit, TaskStarted
from otel_celery_memory.worker.pipe import PipeWriter, RecordSink

_NAME_BYTES = 128
"""Of a name that does not fit: what is left beside the longest id."""


class InFlightSlot:
    """One slot's place in the page."""

    def __init__(self, pipe: PipeWriter) -> None:
        self.pipe = pipe
        self._pid = os.getpid()
        self.place = pipe.page.in_flight_area(pipe.slot)
        """The page, and where in it the `IN_FLIGHT_BYTES` of this slot begin."""

    def tell_of_predecessor(self) -> None:
        """Send what the process before in this slot held when it died, before it is overwritten.

        Nothing is found where the main process heard of its end.
        """
        held = self._held()
        if held is not None and held.pid != self._pid:
            self.pipe.send(TaskInFlightAtExit(*held))
        self.pipe.page.claim(self.pipe.slot, self._pid)

    def send(self, started: TaskStarted) -> None:
        """Send a start, and hold it for a reporter that does not hear of it.

        What it says of the task before is told with it: once is enough.
        """
        # Held first: a start that was sent is never followed by a word that nothing runs.
        page, at = self.place
        frame = _frame(started._replace(retained_bytes=None, previous_task=""))
        page[at : at + len(frame)] = frame
        self.pipe.send(started)

    def ended(self, task_id: str, *, idle: bool) -> None:
        """The end of this task was told; ``idle``: by itself, and nothing else runs."""
        page, at = self.place
        if idle:
            page[at] = IDLE
        else:
            self.forget(task_id)

    def forget(self, task_id: str) -> bool:
        """This task is held no more, if it is; another one's start stays. Whether it was held."""
        held = self._held()
        if held is None or held.task_id != task_id:
            return False
        self.give_up()
        return True

    def give_up(self) -> None:
        """What runs is not known any more."""
        page, at = self.place
        page[at] = UNKNOWN

    def doubt(self) -> None:
        """A task may have begun that is not held."""
        page, at = self.place
        if page[at] == IDLE:
            page[at] = UNKNOWN

    def _held(self) -> TaskStarted | None:
        return decode_in_flight(self.pipe.page.in_flight(self.pipe.slot))


def open_in_flight_slot(slot: int, sink: RecordSink) -> InFlightSlot | None:
    """That of a process that has a place of its own in the page: a child, of the first 510."""
    return InFlightSlot(sink) if has_in_flight_area(slot) and isinstance(sink, PipeWriter) else None


def _frame(started: TaskStarted) -> bytes:
    """What is held of a start: of a long name the beginning, as far as there is room."""
    try:
        frame = encode(started)
        if len(frame) > IN_FLIGHT_BYTES:
            name = started.task.encode("utf-8", "replace")[:_NAME_BYTES].decode("utf-8", "ignore")
            frame = encode(started._replace(task=name))
    except SoftTimeLimitExceeded:
        raise  # the task's time limit, which happened to hit us
    except Exception:
        return bytes((UNKNOWN,))  # it cannot be sent either, which is counted
    return frame
