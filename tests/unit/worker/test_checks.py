"""What the main process looks at now and then fails alone, and is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_celery_memory.records import PartFailed
from otel_celery_memory.worker.checks import Checks
from tests.unit.fakes import ListSink


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


class BrokenReaper:
    """Fails at every look."""

    looks = 0

    def follow(self, _: object) -> None:
        self.looks += 1
        raise RuntimeError("billiard has changed")


def test_checks_that_fail_again_and_again_are_switched_off_and_told() -> None:
    worker, sink, reaper = Worker(), ListSink(), BrokenReaper()
    parts: list[Any] = [worker, sink, None, reaper]
    checks = Checks(*parts)
    checks.begin()
    for _ in range(10):
        worker.check()
    checks.end()
    (failed,) = sink.records
    assert isinstance(failed, PartFailed)
    assert (failed.slot, failed.part, reaper.looks) == (-1, "checks", 3)
