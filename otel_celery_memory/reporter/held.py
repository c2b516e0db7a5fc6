"""The tasks that processes are running, from the control page: starts that were not sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from otel_celery_memory.frames import held_start
from otel_celery_memory.records import TaskStarted
from otel_celery_memory.reporter.state import WorkerState


class Holder(Protocol):
    """Who is told."""

    state: WorkerState

    def holds(self, record: TaskStarted) -> None:
        """A process holds the start of its task in the control page."""


class HeldTasks:
    """Looks at what the processes hold: a task that killed its process is known by that alone."""

    def __init__(self, held: Callable[[int], bytes], holder: Holder) -> None:
        """``held`` gives the bytes in a slot's place, empty where nothing is held."""
        self._held = held
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
        held = held_start(self._held(process.slot))
        # A slot's next process may have written over it already.
        if held is not None and held.pid == pid:
            self._holder.holds(held)
