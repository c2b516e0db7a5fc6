"""What the main process checks periodically and when it ends; a failure stops nothing else."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from otel_celery_memory.ipc.records import (
    NO_SPAN,
    MessagesHeld,
    PartFailed,
    ProcessExited,
    ProcessUp,
    Record,
)
from otel_celery_memory.worker.lifecycle import periodic_checks
from otel_celery_memory.worker.lifecycle.child_exits import ChildExitObserver
from otel_celery_memory.worker.lifecycle.periodic_checks import RESYNC_CHECKS, PeriodicChecks
from tests.unit.fakes import ListSink, exits_to

REAPED = [ProcessExited(pid, 2**62, -9, 0, 0, 0, NO_SPAN, "", "") for pid in (11, 12)]


class Worker:
    """A worker whose timer the test calls."""

    def __init__(self) -> None:
        self.timer = self
        self.pool = None
        self.check: Callable[[], None] = lambda: None

    def call_repeatedly(self, _: float, check: Callable[[], None]) -> Worker:
        self.check = check
        return self

    def cancel(self) -> None:
        """Nothing is held."""


class RecordWriter(ListSink):
    """A pipe that may be full, and a page with one acknowledged exit."""

    page = SimpleNamespace(acknowledged_exits=SimpleNamespace(pids=lambda: frozenset((12,))))
    full = False

    def send(self, record: Record) -> bool:
        return not self.full and super().send(record)


class Supervisor:
    """A supervisor whose reporter is alive, or dead and started again once."""

    dead = False

    def check(self) -> bool:
        found, self.dead = self.dead, False
        return found

    restart_if_dead = check


class BrokenObserver:
    """Raises at every check."""

    checks_made = 0

    def follow(self, _: object) -> None:
        self.checks_made += 1
        raise RuntimeError("billiard has changed")


class Bench:
    """Checks of a worker of which two children were reaped."""

    def __init__(self, observer: Any = None) -> None:
        self.worker = Worker()
        self.pipe = RecordWriter()
        self.supervisor = Supervisor()
        exits = exits_to(self.pipe)
        self.observer = observer or ChildExitObserver(exits)
        self.confirmations = self.events = 0
        parts: list[Any] = [self.worker, self.pipe, self.supervisor, self.observer]
        parts += [self.confirm, self.send_event]
        self.checks = PeriodicChecks(*parts)
        self.checks.begin()
        self.reap = exits.record

    def confirm(self) -> None:
        self.confirmations += 1

    def send_event(self) -> None:
        self.events += 1

    def sent(self) -> list[type[Record]]:
        """The types of the records sent since the last call."""
        sent = [type(record) for record in self.pipe.records]
        self.pipe.records.clear()
        return sent

    def exited(self) -> list[Record]:
        return [record for record in self.pipe.records if isinstance(record, ProcessExited)]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    for exited in REAPED:
        made.reap(exited)
    assert made.sent() == [ProcessExited] * 2
    return made


def test_the_processes_are_sent_periodically(bench: Bench) -> None:
    for _ in range(RESYNC_CHECKS):
        assert bench.sent() == []
        bench.worker.check()
    assert bench.sent() == [ProcessUp, MessagesHeld]


def test_at_each_check_a_suspicion_may_be_confirmed(bench: Bench) -> None:
    for _ in range(3):
        bench.worker.check()
    assert bench.confirmations == 3


def test_at_each_check_it_may_be_time_for_an_event(bench: Bench) -> None:
    for _ in range(3):
        bench.worker.check()
    assert bench.events == 3


def test_a_reporter_that_was_started_again_is_sent_the_exits_not_acknowledged(bench: Bench) -> None:
    bench.supervisor.dead = True
    bench.worker.check()
    assert bench.exited() == REAPED[:1]


def test_a_reporter_that_is_dead_when_the_worker_ends_is_started_again_and_resynced(
    bench: Bench,
) -> None:
    bench.supervisor.dead = True
    bench.checks.end()
    assert bench.exited() == REAPED[:1]
    bench.checks.end()
    assert len(bench.exited()) == 1


def test_an_exit_that_a_full_pipe_did_not_accept_is_sent_at_the_next_check() -> None:
    bench = Bench()
    bench.pipe.full = True
    bench.reap(REAPED[0])
    bench.worker.check()
    assert bench.sent() == []
    bench.pipe.full = False
    bench.worker.check()
    bench.worker.check()
    assert bench.exited() == REAPED[:1]


def test_messages_that_cannot_be_counted_stop_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic_checks, "read_messages_held", lambda *_: 1 / 0)
    for _ in range(5 * RESYNC_CHECKS):
        bench.worker.check()
    failed = [record for record in bench.pipe.records if isinstance(record, PartFailed)]
    assert [record.part for record in failed] == ["messages"]
    assert bench.sent().count(ProcessUp) == 5


def test_checks_that_fail_again_and_again_are_switched_off_and_reported() -> None:
    observer = BrokenObserver()
    bench = Bench(observer)
    for _ in range(10):
        bench.worker.check()
    bench.checks.end()
    (failed,) = [record for record in bench.pipe.records if isinstance(record, PartFailed)]
    assert (failed.slot, failed.part, observer.checks_made) == (-1, "checks", 3)
