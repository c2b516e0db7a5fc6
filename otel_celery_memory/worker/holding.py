"""The task that a child of the pool runs, held in the control page: there it outlives the child.

A reporter may die too, or the pipe be full: what was only sent is known to nobody then. The main
process takes what a child held when it reaps it (`child_ends.py`). Where it did not, whoever has
the slot next passes on what it finds, before its own tasks are written over it.
"""

from __future__ import annotations

import os

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.frames import held_start
from otel_celery_memory.page import HELD_BYTES, SLOTS
from otel_celery_memory.records import TaskHeld, TaskStarted
from otel_celery_memory.wire import encode
from otel_celery_memory.worker.channel import Channel
from otel_celery_memory.worker.sink import Sink


class Holding:
    """One slot's place in the page; its first byte is zero where nothing is held."""

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

    def hold_sent(self, started: TaskStarted) -> None:
        """Hold a start that was sent as well, for a reporter that does not hear of it.

        What it says of the task before was told with it: once is enough.
        """
        self.release()
        try:
            frame = encode(started._replace(retained_bytes=None, previous_task=""))
        except SoftTimeLimitExceeded:
            raise  # the task's time limit, which happened to hit us
        except Exception:
            return  # it could not be sent either, which is counted
        if len(frame) <= HELD_BYTES:
            page, at = self.place
            page[at : at + len(frame)] = frame

    def release(self) -> None:
        """Nothing is running, or it is measured no more."""
        self.channel.page.release(self.channel.slot)

    def release_of(self, task_id: str) -> None:
        """This task is running no more; another one's start stays."""
        page, at = self.place
        if task_id.encode(errors="replace") in page[at : at + HELD_BYTES]:
            self.release()


def open_holding(slot: int, sink: Sink) -> Holding | None:
    """That of a process that has a place of its own in the page: a child, of the first 510."""
    return Holding(sink) if 0 <= slot < SLOTS - 2 and isinstance(sink, Channel) else None
