"""The tasks that processes are running, from the control page: starts that were not sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol

from otel_celery_memory.frames import FrameDecoder
from otel_celery_memory.records import TaskStarted
from otel_celery_memory.reporter.state import WorkerState


class Holder(Protocol):
    """Who is told."""

    state: WorkerState

    def holds(self, record: TaskStarted) -> None:
        """A process holds the start of its task in the control page."""


class HeldTasks:
    """Looks at what the processes hold: a task that killed its process is known by that alone."""

    def __init__(self, held: Callable[[int], Iterable[bytes]], holder: Holder) -> None:
        """``held`` gives the bytes in a slot's places, empty where nothing is held.

        First what its process holds, then what those before it did when they were lost.
        """
        self._held = held
        self._holder = holder

    def look(self) -> None:
        """At all processes that run."""
        for pid in list(self._holder.state.processes):
            self._look(pid, 1)

    def look_at(self, pid: int) -> None:
        """At one process that is gone: another one may have its slot."""
        self._look(pid, None)

    def _look(self, pid: int, places: int | None) -> None:
        process = self._holder.state.processes.get(pid)
        if process is None or process.slot is None:
            return
        for place, data in enumerate(islice(self._held(process.slot), places)):
            # A pid comes again, and what an earlier process held may still lie there.
            after_ns = process.up_ns or 0 if place else 0
            for record in FrameDecoder().feed(data):
                # A slot's next process may have written over it already.
                if not isinstance(record, TaskStarted) or record.pid != pid:
                    continue
                if record.time_ns > after_ns:
                    self._holder.holds(record)
