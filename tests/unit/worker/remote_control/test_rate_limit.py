"""Some commands are allowed at once, and then so many a second."""

from __future__ import annotations

from otel_celery_memory.worker.remote_control.validation import RateLimit
from tests.unit.fakes import FakeClock


def allowed(rate: RateLimit, asked: int) -> int:
    """How many of so many commands are allowed at one moment."""
    return sum(rate.allows() for _ in range(asked))


def test_some_commands_are_allowed_at_once_and_then_so_many_a_second() -> None:
    clock = FakeClock(100.0)
    rate = RateLimit(5, 2.0, clock)
    assert allowed(rate, 100) == 5
    clock.move(1.0)
    assert allowed(rate, 100) == 2
    clock.move(0.25)
    assert allowed(rate, 1) == 0
    clock.move(0.25)
    assert allowed(rate, 1) == 1


def test_after_a_long_pause_no_more_are_allowed_at_once_than_at_first() -> None:
    clock = FakeClock(100.0)
    rate = RateLimit(5, 2.0, clock)
    clock.move(1e9)
    assert allowed(rate, 100) == 5


def test_refused_commands_do_not_lengthen_the_wait() -> None:
    clock = FakeClock(100.0)
    rate = RateLimit(1, 1.0, clock)
    passed_at = []
    for step in range(40):
        if rate.allows():
            passed_at.append(step / 8)
        clock.move(0.125)
    assert passed_at == [0.0, 1.0, 2.0, 3.0, 4.0]
