"""A lane on a memory and a clock that a test moves, and the pipe and page that it writes to."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from otel_celery_memory.circuit_breaker import PartSwitches
from otel_celery_memory.ipc.codec import FrameDecoder
from otel_celery_memory.ipc.records import Record, TaskFinished, TaskStarted
from otel_celery_memory.probes.own_memory import PAGE_BYTES
from otel_celery_memory.worker.measuring import fast_path
from otel_celery_memory.worker.measuring.fast_path import FastPath
from otel_celery_memory.worker.measuring.in_flight import InFlightSlot
from otel_celery_memory.worker.measuring.spans import ContainedSpans, TaskSpans
from otel_celery_memory.worker.measuring.task_measurement import TaskMeasurement
from otel_celery_memory.worker.pipe import PipeWriter
from tests.unit.fakes import FakeMemory, FakeTracer

SLOT = 3


def task_of(name: str = "app.task", *, eager: bool = False) -> Any:
    """A task as the receivers see it."""
    return SimpleNamespace(name=name, request=SimpleNamespace(is_eager=eager))


class FastPathBench:
    """Everything the lane reads is the memory's; `memory` is in bytes, whole pages of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tracing: Any = None) -> None:
        self.memory = FakeMemory(100 * PAGE_BYTES)
        self.now_ns = 0
        self.steps: list[str] = []
        self.failing: dict[str, BaseException] = {}
        for name, fake in {
            "pread": self._pread,
            "getrusage": self._getrusage,
            "time_ns": self._time_ns,
            "write": self._write,
        }.items():
            monkeypatch.setattr(fast_path, name, fake)
        self.pipe = PipeWriter()
        self.pipe.slot = SLOT
        self.measurement = TaskMeasurement(self.memory, FakeTracer(), self._time_ns)
        self.spans = TaskSpans()
        probe: Any = SimpleNamespace(statm=1, clear_refs=2)
        contained = ContainedSpans(self.spans, PartSwitches())
        self.fast_path = FastPath(
            InFlightSlot(self.pipe), probe, self.measurement, tracing, contained
        )

    def use(self, pages: int) -> None:
        self.memory.use(pages * PAGE_BYTES)

    def held(self) -> list[Record]:
        """What the page holds for the reporter."""
        return FrameDecoder().feed(self.pipe.page.in_flight(SLOT))

    def told(self) -> list[Record]:
        """The records in the pipe since the last time."""
        try:
            return FrameDecoder().feed(os.read(self.pipe.read_fd, 1 << 20))
        except BlockingIOError:
            return []

    def run(self, task_id: str = "a", task: str = "app.task", pages: int = 110) -> list[Record]:
        """A plain run that ends with so many pages; what is told of it."""
        assert self.fast_path.starts(task_id, task_of(task))
        self.use(pages)
        assert self.fast_path.ends(task_id, task_of(task), "SUCCESS")
        return self.told()

    def general(
        self, task_id: str = "a", task: str = "app.task", pages: int = 110
    ) -> tuple[TaskStarted, TaskFinished]:
        """The same run in the general way, measured by the meter."""
        started = self.measurement.start(task_id, task, lambda: False)
        self.use(pages)
        run = self.measurement.finish(task_id)
        assert run is not None
        return started, self.measurement.result(run, "SUCCESS")

    def close(self) -> None:
        self.pipe.close()

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.failing:
            raise self.failing.pop(name)

    def _pread(self, fd: int, size: int, offset: int) -> bytes:
        self._step("pread")
        return b"900 %d 70 0 0 0 0\n" % (self.memory.rss_bytes() // PAGE_BYTES)

    def _getrusage(self, who: int) -> Any:
        self._step("getrusage")
        return SimpleNamespace(ru_maxrss=self.memory.peak_bytes() // 1024)

    def _time_ns(self) -> int:
        self._step("time_ns")
        self.now_ns += 1
        return self.now_ns

    def _write(self, fd: int, data: bytes) -> int:
        self._step("write")
        self.memory.reset_peak()
        return len(data)
