"""The ends of the pool's children, as the main process tells them: each until the pipe takes it.

billiard tells of an end before it starts the successor: what the child held in the control page is
still there. The last ends are kept, for a reporter that is started again: the one before it may
have read of them and told nobody.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from billiard.pool import EX_OK, EX_RECYCLE

from otel_celery_memory.ipc.codec import Places, held_by
from otel_celery_memory.ipc.records import ProcessExited, TaskHeld
from otel_celery_memory.worker.sink import Sink

KEPT_MAX = 256
_ORDERLY = (EX_OK, EX_RECYCLE)
"""Exit codes of children that shut down, or reached a per-child limit."""


class ClearedPlaces(Places, Protocol):
    """The same, for who reaps the processes."""

    def clear(self, slot: int) -> None:
        """It holds nothing any more."""


@dataclass(frozen=True)
class ChildEnd:
    """A child that was reaped, and the task that it held, if any."""

    exited: ProcessExited
    held: TaskHeld | None

    @property
    def orderly(self) -> bool:
        """Whether there is nothing to tell but that it ended."""
        return self.held is None and self.exited.exit_code in _ORDERLY

    def tell(self, sink: Sink) -> bool:
        """Send both, the task first: with its process's end it may be judged."""
        return (self.held is None or sink.send(self.held)) and sink.send(self.exited)


class ChildEnds:
    """Tells of each end, and keeps what was told lately and what the pipe had no room for."""

    def __init__(self, sink: Sink, places: ClearedPlaces) -> None:
        self._sink = sink
        self._places = places
        self._lost: deque[ChildEnd] = deque(maxlen=KEPT_MAX)
        # Apart: of children that are recycled all the time there are many.
        self._orderly: deque[ChildEnd] = deque(maxlen=KEPT_MAX)
        self._unsent: deque[ChildEnd] = deque(maxlen=KEPT_MAX)

    def tell(self, exited: ProcessExited) -> None:
        """A child was reaped; called before its slot has another one, and looks at its place."""
        exited = exited._replace(idle=int(self._places.idle(exited.slot, exited.pid)))
        end = ChildEnd(exited, self._held_by(exited))
        (self._orderly if end.orderly else self._lost).append(end)
        if not end.tell(self._sink):
            self._unsent.append(end)
        elif end.held is not None:
            # Who is in this slot much later would take it for news.
            self._places.clear(exited.slot)

    def tell_unsent(self) -> None:
        """Once more what a full pipe did not take; called by one thread."""
        while self._unsent and self._unsent[0].tell(self._sink):
            self._unsent.popleft()

    def since(self, time_ns: int) -> list[ChildEnd]:
        """The latest ends that were told at this time or later."""
        kept = [*self._lost, *self._orderly]
        return [end for end in kept if end.exited.time_ns >= time_ns]

    def _held_by(self, exited: ProcessExited) -> TaskHeld | None:
        held = held_by(self._places, exited.slot, exited.pid)
        return None if held is None else TaskHeld(*held)
