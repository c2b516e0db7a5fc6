"""A meter on a memory, a tracer, a clock and threads that a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_celery_memory.ipc.records import TaskFinished, TaskStarted
from otel_celery_memory.worker.measuring.task_measurement import TaskMeasurement
from tests.unit.fakes import FakeMemory, FakeTracer


def yes() -> bool:
    return True


def no() -> bool:
    return False


@dataclass
class Bench:
    """A meter and all that it looks at; the clock counts its looks."""

    memory: FakeMemory = field(default_factory=FakeMemory)
    tracer: FakeTracer = field(default_factory=FakeTracer)
    thread: int = 1

    def __post_init__(self) -> None:
        self.looks = 0
        self.measurement = TaskMeasurement(
            self.memory, self.tracer, self._look, lambda: self.thread
        )

    def _look(self) -> int:
        self.looks += 1
        return self.looks

    def start(self, task_id: str, *, nested: bool = False) -> TaskStarted:
        """A task whose name is its id starts in the current thread."""
        return self.measurement.start(task_id, f"app.{task_id}", yes if nested else no)

    def finish(self, task_id: str) -> TaskFinished:
        """It ends there."""
        run = self.measurement.finish(task_id)
        assert run is not None
        return self.measurement.result(run, "SUCCESS")
