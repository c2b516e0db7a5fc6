"""One process's tracing, task by task, with the real ``tracemalloc`` and a page of its own."""

from __future__ import annotations

import _thread
import random
from types import SimpleNamespace
from typing import Any

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import Site, SitesWindow, WindowKind
from otel_celery_memory.probes.sites import SiteFilter
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.time_limits import TimeLimits
from otel_celery_memory.worker.tracing.sampled import SampledTracing
from tests.processes import wait_until
from tests.unit.examples import finished
from tests.unit.fakes import FakeClock, ListSink

BLOCK = 1_000


class Tracing:
    """`SampledTracing` of a process, whose clocks a test moves; a run takes 10 ms of CPU time."""

    def __init__(self, page: ControlPage | None = None, foreign_threads: bool = False) -> None:
        self.sink = ListSink()
        self.page = page or ControlPage()
        self.tracer = TracemallocSession(1, lambda: ("libother.so",) if foreign_threads else ())
        self.clock, self.cpu = FakeClock(1_000.0), FakeClock()
        self.limits = TimeLimits()
        self.kept: list[Any] = [None] * 10_000
        self.count = 0
        self.threads = _thread._count()
        self.tracing = SampledTracing(
            0,
            self.sink,
            Settings(),
            self.tracer,
            self.page,
            lambda task: self.limits.shortest_s(task),
            SiteFilter(include=[__file__]),
            self.clock,
            self.cpu,
            random.Random(1),
        )

    def start(self, task: str = "a", task_id: str = "1", *, alone: bool = True) -> bool:
        request = SimpleNamespace(timelimit=None)
        self.tracing.starting()
        return self.tracing.started(
            task_id, SimpleNamespace(name=task, request=request), alone=alone
        )

    def end(self, task: str = "a", task_id: str = "1", *, exclusive: bool = True) -> None:
        self.tracing.ended(finished(task=task, task_id=task_id, exclusive=int(exclusive)))

    def leak(self, blocks: int) -> None:
        for _ in range(blocks):
            self.kept[self.count] = bytes(BLOCK)
            self.count += 1

    def move(self, cpu_s: float, wait_s: float = 0.0) -> None:
        """Time goes by, of which the process works `cpu_s`."""
        self.cpu.move(cpu_s)
        self.clock.move(cpu_s + wait_s)

    def run(self, task: str = "a", blocks: int = 1, cpu_s: float = 0.01) -> bool:
        """A whole run; whether it was traced from its start."""
        traced = self.start(task)
        self.leak(blocks)
        self.move(cpu_s)
        self.end(task)
        return traced

    def until_traced(self, task: str = "a", most: int = 2_000) -> int:
        """Runs until one was traced, its window told."""
        for number in range(1, most):
            if self.run(task):
                self.tracing.starting()
                return number
        raise AssertionError("never traced")

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

    def wait_for_window(self) -> None:
        wait_until("a window is told", lambda: bool(self.sink.records), 30)

    def down(self) -> None:
        """The process ends; nothing of it goes on."""
        self.tracing.down()
        self.tracer.stop()
        wait_until("the guards are gone", lambda: _thread._count() <= self.threads, 30)


_LEAK_LINE = Tracing.leak.__code__.co_firstlineno + 2
