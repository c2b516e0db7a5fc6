"""One process's tracing, task by task, with the real ``tracemalloc`` and a page of its own."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import RAISED_STATES, Site, SitesWindow, WindowKind
from otel_celery_memory.probes import urgent_signal
from otel_celery_memory.probes.sites import SiteFilter
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.time_limits import TimeLimits
from otel_celery_memory.worker.tracing.sampled import SampledTracing
from tests.unit.fakes import FakeClock, ListSink

BLOCK = 1_000


class Tracing:
    """`SampledTracing` of a process, whose clocks a test moves; a run takes 1 ms of CPU time."""

    def __init__(
        self,
        page: ControlPage | None = None,
        foreign_threads: bool = False,
        warm_up_s: float = 0.0,
    ) -> None:
        self.sink = ListSink()
        self.page = page or ControlPage()
        self.tracer = TracemallocSession(1, lambda: ("libother.so",) if foreign_threads else ())
        # Tests of ours have names of their own for Python's functions.
        self.tracer._modules_seen.update(__import__("sys").modules)
        self.clock, self.cpu = FakeClock(1_000.0), FakeClock()
        self.limits = TimeLimits()
        self.kept: list[Any] = [None] * 200_000
        self.count = 0
        self.tracing = SampledTracing(
            0,
            self.sink,
            Settings(warm_up=warm_up_s),
            self.tracer,
            self.page,
            lambda task: self.limits.shortest_s(task),
            SiteFilter(include=[__file__]),
            self.clock,
            self.cpu,
            random.Random(1),
        )
        self.tracer.asked = self.tracing.asked

    @property
    def traces(self) -> bool:
        """Whether we trace now; who asks ``tracemalloc`` ends that."""
        return self.tracer.ours

    def start(self, task: str = "a", task_id: str = "1", *, alone: bool = True) -> bool:
        request = SimpleNamespace(timelimit=None)
        run = self.leak if task == "a" else None
        self.tracing.starting()
        return self.tracing.started(
            task_id, SimpleNamespace(name=task, request=request, run=run), alone=alone
        )

    def end(
        self,
        task: str = "a",
        task_id: str = "1",
        *,
        exclusive: bool = True,
        state: str = "SUCCESS",
    ) -> None:
        raised = state in RAISED_STATES
        self.tracing.ended(task_id, task, exclusive=exclusive, raised=raised)

    def leak(self, blocks: int) -> None:
        for _ in range(blocks):
            self.kept[self.count] = bytes(BLOCK)
            self.count += 1

    def move(self, cpu_s: float, wait_s: float = 0.0) -> None:
        """Time goes by, of which the process works `cpu_s`."""
        self.cpu.move(cpu_s)
        self.clock.move(cpu_s + wait_s)

    def run(
        self, task: str = "a", blocks: int = 1, cpu_s: float = 0.001, state: str = "SUCCESS"
    ) -> bool:
        """A complete run; whether it was traced."""
        traced = self.start(task)
        self.leak(blocks)
        self.move(cpu_s * (2 if traced else 1))
        self.end(task, state=state)
        return traced

    def until_traced(self, task: str = "a", most: int = 20_000) -> int:
        """Runs until one is traced."""
        for number in range(1, most):
            if self.run(task):
                return number
        raise AssertionError("never traced")

    def until_window(self, *tasks: str, most: int = 20_000, **how: Any) -> list[tuple[Any, ...]]:
        """Runs of these tasks in turn, until a window has been sent."""
        for number in range(most):
            self.run(tasks[number % len(tasks)], **how)
            if found := self.windows():
                return found
        raise AssertionError("no window")

    def windows(self) -> list[tuple[str, str, int, int, int]]:
        """Kind, task, capture, aborted and leaked blocks of each window since the last time."""
        found = []
        blocks: dict[int, int] = {}
        at = -1
        for record in self.sink.records:
            if isinstance(record, SitesWindow):
                at += 1
                kind = WindowKind(record.kind).name
                found.append((kind, record.task, record.capture, record.aborted))
            elif isinstance(record, Site) and record.line == _LEAK_LINE:
                blocks[at] = blocks.get(at, 0) + record.blocks
        self.sink.records.clear()
        return [(*window, blocks.get(at, 0)) for at, window in enumerate(found)]

    def traced_runs(self) -> dict[str, int]:
        """Runs by task that the windows since the last time cover."""
        records = [r for r in self.sink.records if isinstance(r, SitesWindow)]
        return {record.task: record.runs for record in records}

    def down(self) -> None:
        """The process ends; nothing of it goes on."""
        self.tracing.down()
        self.tracer.stop()
        urgent_signal.release()


_LEAK_LINE = Tracing.leak.__code__.co_firstlineno + 2
