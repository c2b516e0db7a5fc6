"""What processes run, from the control page: starts that were not sent, and that nothing runs."""

from __future__ import annotations

from typing import Protocol

from otel_celery_memory.ipc.codec import Places, held_by
from otel_celery_memory.ipc.records import TaskStarted
from otel_celery_memory.reporter.state.worker_state import WorkerState


class Holder(Protocol):
    """Who is told."""

    state: WorkerState

    def holds(self, record: TaskStarted) -> None:
        """A process holds the start of its task in the control page."""


class HeldTasks:
    """Looks at what the processes hold: a task that killed its process is known by that alone."""

    def __init__(self, places: Places, holder: Holder) -> None:
        self._places = places
        self._holder = holder

    def look(self) -> None:
        """At all processes that run."""
        for pid in list(self._holder.state.processes):
            self.look_at(pid)

    def look_at(self, pid: int) -> None:
        """At one process; it may be gone, and another one have its slot."""
        process = self._holder.state.processes.get(pid)
        if process is None or process.slot is None:
            return
        if self._places.idle(process.slot, pid):
            process.idle = True
            return
        held = held_by(self._places, process.slot, pid)
        if held is not None:
            self._holder.holds(held)
