"""A measurement on a memory and a clock that a test moves, and the rings and page it writes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_celery_memory.circuit_breaker import PartSwitches
from otel_celery_memory.ipc.codec import records_in
from otel_celery_memory.ipc.records import Record, TaskFinished
from otel_celery_memory.probes.own_memory import PAGE_BYTES
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.worker.measuring.concurrent_runs import ConcurrentRuns
from otel_celery_memory.worker.measuring.in_flight import InFlightSlot
from otel_celery_memory.worker.measuring.spans import ContainedSpans, TaskSpans
from otel_celery_memory.worker.measuring.task_measurement import ContainedTracing, TaskMeasurement
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.unit.fakes import FakeMemory, FakeTracer
from tests.unit.rings import Rings
from tests.unit.worker.bench import task_of

SLOT = 3


class SteppedMemory(FakeMemory):
    """Says what is asked of it, and fails where a test wants it to."""

    def __init__(self, step: Callable[[str], None]) -> None:
        super().__init__(100 * PAGE_BYTES)
        self._step = step

    def rss_bytes(self) -> int:
        self._step("rss")
        return super().rss_bytes()

    def reset_peak(self) -> bool:
        self._step("reset")
        return super().reset_peak()

    def peak_bytes(self) -> int:
        self._step("peak")
        return super().peak_bytes()


class FastPathBench:
    """A pool child's measurement; `memory` is in bytes, whole pages of them."""

    def __init__(self) -> None:
        self.memory = SteppedMemory(self._step)
        self.now_ns = 0
        self.failing: dict[str, BaseException] = {}
        self.pipe = RecordWriter()
        self.pipe.attach(SLOT)
        self._rings = Rings(self.pipe)
        switches = PartSwitches()
        self.runs = ConcurrentRuns(self.memory, FakeTracer())
        self.measurement = TaskMeasurement(
            self.pipe,
            InFlightSlot(self.pipe),
            self.memory,
            self.runs,
            ContainedSpans(TaskSpans(), switches),
            ContainedTracing(None, TracemallocSession(1), switches),
            self._time_ns,
        )

    def use(self, pages: int) -> None:
        self.memory.use(pages * PAGE_BYTES)

    def held(self) -> list[Record]:
        """What the page holds for the reporter."""
        return records_in(self.pipe.page.in_flight(SLOT))

    def sent(self) -> list[Record]:
        """The records in the rings since the last time."""
        return self._rings.read()

    def start(self, task_id: str = "a", task: Any = None) -> bool:
        """A task starts: whether it is plain."""
        self.measurement.start(task_id, task or task_of())
        return not self.runs.runs

    def end(self, task_id: str = "a", task: Any = None, state: str | None = "SUCCESS") -> bool:
        """It ends: whether its start was seen."""
        return bool(self.measurement.end(task_id, task or task_of(), state))

    def run(self, task_id: str = "a", task: str = "app.task", pages: int = 110) -> list[Record]:
        """A plain run that ends with so many pages; what is sent of it."""
        assert self.start(task_id, task_of(task))
        self.use(pages)
        assert self.end(task_id, task_of(task))
        return self.sent()

    def next_is_right(self) -> None:
        """The next task is measured, plain or not, and the one behind it is plain."""
        self.sent()
        self.use(100)
        self.start("b")
        self.use(140)
        assert self.end("b")
        finished = self.sent()[-1]
        assert isinstance(finished, TaskFinished)
        assert (finished.task_id, finished.rss_start_bytes, finished.rss_delta_bytes) == (
            "b",
            100 * PAGE_BYTES,
            40 * PAGE_BYTES,
        )
        assert self.held() == []
        assert [type(record) for record in self.run("c")] == [TaskFinished]

    def close(self) -> None:
        self._rings.close()
        self.pipe.close()

    def _step(self, name: str) -> None:
        if name in self.failing:
            raise self.failing.pop(name)

    def _time_ns(self) -> int:
        self._step("time")
        self.now_ns += 1
        return self.now_ns
