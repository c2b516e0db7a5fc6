"""The task that a child of the pool runs, held in the control page: there it outlives the child.

A reporter may die too, or the pipe be full: what was only sent is known to nobody then. The main
process takes what a child held when it reaps it (`child_ends.py`). Where it did not, whoever has
the slot next passes on what it finds, before its own tasks are written over it.
"""

from __future__ import annotations

import os

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.frames import held_start
from otel_celery_memory.page import HELD_BYTES, IDLE, UNKNOWN, has_place
from otel_celery_memory.records import TaskHeld, TaskStarted
from otel_celery_memory.wire import encode
from otel_celery_memory.worker.channel import Channel
from otel_celery_memory.worker.sink import Sink


class Holding:
    """One slot's place in the page."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._pid = os.getpid()
        self.place = channel.page.held_at(channel.slot)
        """The page and where in it `HELD_BYTES` are, for who writes a frame of its own there."""

    def tell_of_predecessor(self) -> None:
        """Send what the process before in this slot held when it died, before it is overwritten.

        Nothing is found where the main process heard of its end.
        """
        held = held_start(self.channel.page.held(self.channel.slot))
        if held is not None and held.pid != self._pid:
            self.channel.send(TaskHeld(*held))
        self.release()

    def send(self, started: TaskStarted) -> None:
        """Send a start, and hold it for a reporter that does not hear of it.

        What it says of the task before is told with it: once is enough.
        """
        page, at = self.place
        if page[at] == IDLE:
            # Who is killed now is not idle, and may have told so.
            page[at] = UNKNOWN
        self.channel.send(started)
        frame = _frame(started._replace(retained_bytes=None, previous_task=""))
        page[at : at + len(frame)] = frame

    def release(self) -> None:
        """No task runs."""
        page, at = self.place
        page[at] = IDLE

    def give_up(self) -> None:
        """What runs is measured no more: nobody knows whether a task does."""
        page, at = self.place
        page[at] = UNKNOWN

    def release_of(self, task_id: str) -> None:
        """This task is running no more; another one's start stays."""
        page, at = self.place
        if task_id.encode(errors="replace") in page[at : at + HELD_BYTES]:
            self.release()


def open_holding(slot: int, sink: Sink) -> Holding | None:
    """That of a process that has a place of its own in the page: a child, of the first 510."""
    return Holding(sink) if has_place(slot) and isinstance(sink, Channel) else None


def _frame(started: TaskStarted) -> bytes:
    """What is held of a start: that something runs is all there is room for with long names."""
    try:
        frame = encode(started)
    except SoftTimeLimitExceeded:
        raise  # the task's time limit, which happened to hit us
    except Exception:
        return bytes((UNKNOWN,))  # it could not be sent either, which is counted
    return frame if len(frame) <= HELD_BYTES else bytes((UNKNOWN,))
