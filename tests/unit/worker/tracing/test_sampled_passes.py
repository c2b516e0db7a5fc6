"""Plain runs that are let by: what they took is learned, and a capture inside one is ended."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.commands import Balance, Commands
from otel_celery_memory.settings import TRACING_FLOOR_S
from tests.unit.worker.tracing.process_tracing import Tracing

TIMED = Commands("", 6, 0, False, 1_500.0, 1.0)


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    made = Tracing()
    yield made
    made.down()
    assert not tracemalloc.is_tracing()


def let_by(tracing: Tracing, times: int) -> int:
    """Plain runs until one is not let by; how many were."""
    for number in range(times):
        if not tracing.tracing.passes("a", "1"):
            return number
        tracing.move(0.01)
        tracing.tracing.passed()
    return times


def test_the_first_run_is_let_by_and_one_whose_turn_has_come_is_not(tracing: Tracing) -> None:
    assert let_by(tracing, 10) == 1
    tracing.until_traced()
    assert not tracing.tracing.passes("a", "1")
    tracing.down()
    tracing.tracing._sampler.spend(TRACING_FLOOR_S, tracing.clock())
    tracing.tracing._sampler.window_closed(TRACING_FLOOR_S, tracing.clock())
    assert let_by(tracing, 2_000) > 5


def test_what_plain_runs_took_is_earned(tracing: Tracing) -> None:
    tracing.until_traced()
    tracing.down()
    before_s = tracing.page.load(0).task_s
    runs = let_by(tracing, 2_000)
    tracing.tracing.save_balance()
    assert tracing.page.load(0).task_s - before_s == pytest.approx(runs * 0.01)


def test_while_a_capture_is_taken_none_is_let_by(tracing: Tracing) -> None:
    tracing.tracing.apply(TIMED)
    assert not tracing.tracing.passes("a", "1")


def test_a_capture_that_begins_inside_one_ends_with_it(tracing: Tracing) -> None:
    assert tracing.tracing.passes("a", "1")
    tracing.tracing.apply(TIMED, now=True)
    assert tracing.traces
    tracing.leak(4)
    tracing.tracing.passed()
    assert tracing.windows() == [("PARTIAL", "a", 6, 0, 4)]


def test_without_a_budget_all_are_let_by_and_nothing_is_earned(tracing: Tracing) -> None:
    tracing.tracing.budgeted = False
    assert let_by(tracing, 100) == 100
    tracing.tracing.save_balance()
    kept = tracing.page.load(0)
    assert kept == Balance(at_s=tracing.clock.now)
