"""What the main process looks at now and then, and as it ends; what fails there fails alone."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from otel_celery_memory.ipc.records import NO_SPAN, PartFailed, ProcessExited, ProcessUp, Record
from otel_celery_memory.worker.lifecycle.child_exits import ChildExitObserver
from otel_celery_memory.worker.lifecycle.periodic_checks import RESYNC_CHECKS, PeriodicChecks
from tests.unit.fakes import ListSink, ends_to

REAPED = [ProcessExited(pid, 2**62, -9, 0, 0, NO_SPAN, "", "") for pid in (11, 12)]


class Worker:
    """A worker whose timer is turned by hand."""

    def __init__(self) -> None:
        self.timer = self
        self.pool = None
        self.check: Callable[[], None] = lambda: None

    def call_repeatedly(self, _: float, check: Callable[[], None]) -> Worker:
        self.check = check
        return self

    def cancel(self) -> None:
        """Nothing is held."""


class PipeWriter(ListSink):
    """A pipe that may be full, and a page on which the end of one process was told."""

    page = SimpleNamespace(acknowledged_exits=SimpleNamespace(pids=lambda: frozenset((12,))))
    full = False

    def send(self, record: Record) -> bool:
        return not self.full and super().send(record)


class Supervisor:
    """Of a reporter that is alive, or dead and started again once."""

    dead = False

    def check(self) -> bool:
        found, self.dead = self.dead, False
        return found

    restart_if_dead = check


class BrokenReaper:
    """Fails at every look."""

    looks = 0

    def follow(self, _: object) -> None:
        self.looks += 1
        raise RuntimeError("billiard has changed")


class Bench:
    """Checks of a worker of which two children were reaped."""

    def __init__(self, reaper: Any = None) -> None:
        self.worker = Worker()
        self.pipe = PipeWriter()
        self.supervisor = Supervisor()
        ends = ends_to(self.pipe)
        self.reaper = reaper or ChildExitObserver(ends)
        parts: list[Any] = [self.worker, self.pipe, self.supervisor, self.reaper]
        self.checks = PeriodicChecks(*parts)
        self.checks.begin()
        self.reap = ends.record

    def told(self) -> list[type[Record]]:
        """The kinds of what was told since the last time."""
        told = [type(record) for record in self.pipe.records]
        self.pipe.records.clear()
        return told

    def exited(self) -> list[Record]:
        return [record for record in self.pipe.records if isinstance(record, ProcessExited)]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    for exited in REAPED:
        made.reap(exited)
    assert made.told() == [ProcessExited] * 2
    return made


def test_the_roll_is_called_now_and_then(bench: Bench) -> None:
    for _ in range(RESYNC_CHECKS):
        assert bench.told() == []
        bench.worker.check()
    assert bench.told() == [ProcessUp]


def test_a_reporter_that_was_started_again_is_told_of_the_ends_that_were_not(bench: Bench) -> None:
    bench.supervisor.dead = True
    bench.worker.check()
    assert bench.exited() == REAPED[:1]


def test_a_reporter_that_is_dead_as_the_worker_ends_is_started_again_and_told(bench: Bench) -> None:
    bench.supervisor.dead = True
    bench.checks.end()
    assert bench.exited() == REAPED[:1]
    bench.checks.end()
    assert len(bench.exited()) == 1


def test_what_a_full_pipe_did_not_take_is_told_at_the_next_check() -> None:
    bench = Bench()
    bench.pipe.full = True
    bench.reap(REAPED[0])
    bench.worker.check()
    assert bench.told() == []
    bench.pipe.full = False
    bench.worker.check()
    bench.worker.check()
    assert bench.exited() == REAPED[:1]


def test_checks_that_fail_again_and_again_are_switched_off_and_told() -> None:
    reaper = BrokenReaper()
    bench = Bench(reaper)
    for _ in range(10):
        bench.worker.check()
    bench.checks.end()
    (failed,) = bench.pipe.records
    assert isinstance(failed, PartFailed)
    assert (failed.slot, failed.part, reaper.looks) == (-1, "checks", 3)
