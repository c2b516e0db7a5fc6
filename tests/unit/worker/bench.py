"""A measurement on a memory, a tracer, a clock and threads that a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from otel_celery_memory.circuit_breaker import PartSwitches
from otel_celery_memory.ipc.records import TaskFinished, TaskStarted
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.worker.measuring.concurrent_runs import ConcurrentRuns
from otel_celery_memory.worker.measuring.spans import ContainedSpans, TaskSpans
from otel_celery_memory.worker.measuring.task_measurement import ContainedTracing, TaskMeasurement
from tests.unit.fakes import FakeMemory, FakeTracer, ListSink


def task_of(name: str = "app.task", *, eager: bool = False) -> Any:
    """A task as the receivers see it."""
    return SimpleNamespace(name=name, request=SimpleNamespace(is_eager=eager))


@dataclass
class Bench:
    """A measurement and all that it reads; the clock counts its reads."""

    memory: FakeMemory = field(default_factory=FakeMemory)
    tracer: FakeTracer = field(default_factory=FakeTracer)
    thread: int = 1
    spans: TaskSpans = field(default_factory=TaskSpans)

    def __post_init__(self) -> None:
        self.reads = 0
        self.sink = ListSink()
        switches = PartSwitches()
        self.runs = ConcurrentRuns(self.memory, self.tracer, lambda: self.thread)
        self.measurement = TaskMeasurement(
            self.sink,
            None,
            self.memory,
            self.runs,
            ContainedSpans(self.spans, switches),
            ContainedTracing(None, TracemallocSession(1), switches),
            self._read,
        )

    def _read(self) -> int:
        self.reads += 1
        return self.reads

    def start(self, task_id: str, *, nested: bool = False) -> TaskStarted:
        """A task of that id starts in the current thread."""
        self.measurement.start(task_id, task_of(f"app.{task_id}", eager=nested))
        started = self.sink.records[-1]
        assert isinstance(started, TaskStarted)
        return started

    def finish(self, task_id: str, state: str = "SUCCESS") -> TaskFinished:
        """It ends there."""
        assert self.measurement.end(task_id, task_of(f"app.{task_id}"), state)
        finished = self.sink.records[-1]
        assert isinstance(finished, TaskFinished)
        return finished

    def is_known(self, task_id: str) -> bool:
        """Whether a run of that id ends here, for it has started here."""
        return bool(self.measurement.end(task_id, task_of(), "SUCCESS"))

    def rebase(self) -> None:
        """The numbers of the run that has just started begin from here."""
        self.runs.rebase(self.runs.runs[self.thread][-1])
