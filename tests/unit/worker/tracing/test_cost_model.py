"""What runs of each task name cost: learned, and of a bounded number of names."""

from __future__ import annotations

import pytest

from otel_celery_memory.worker.tracing.budget import (
    NAMES_MAX,
    SLOWDOWN_AT_FIRST,
    KnownCosts,
    TaskCosts,
)


def test_the_first_run_which_may_have_imported_much_is_replaced_by_the_second() -> None:
    costs = TaskCosts(0.0)
    costs.ran(9.0, 9.0, 0.0)
    costs.ran(0.1, 0.2, 0.0)
    assert (costs.cpu_s, costs.wall_s) == pytest.approx((0.1, 0.2))
    assert costs.wall_longest_s == pytest.approx(9.0, rel=0.02)


def test_how_much_slower_a_run_is_under_tracing_is_learned_from_the_first_one() -> None:
    costs = TaskCosts(0.0)
    for _ in range(3):
        costs.ran(0.1, 0.1, 0.0)
    assert costs.slowdown == SLOWDOWN_AT_FIRST
    costs.was_traced(0.12, 0.0, aborted=False)
    assert costs.slowdown == pytest.approx(1.2)
    assert costs.added_s == pytest.approx(0.02)


def test_a_run_that_was_stopped_would_have_been_slower() -> None:
    costs = TaskCosts(0.0)
    costs.ran(0.1, 0.1, 0.0)
    costs.was_traced(1.0, 0.0, aborted=True)
    assert costs.slowdown == pytest.approx(15.0)


def test_names_are_bounded_and_those_that_have_not_run_for_an_hour_give_way() -> None:
    known = KnownCosts()
    for number in range(NAMES_MAX + 5):
        known.of(f"task{number}", float(number)).ran(0.1, 0.1, float(number))
    assert known.of("one more", 300.0) is known.of("and another", 300.0)
    known.of("task7", 9_000.0).ran(0.1, 0.1, 9_000.0)
    assert known.of("late", 9_000.0) is not known.of("later still", 300.0)


def test_the_name_that_was_traced_least_is_of_those_that_run() -> None:
    known = KnownCosts()
    for name, traced, seen_s in (("a", 3, 500.0), ("b", 1, 500.0), ("gone", 0, 1.0)):
        costs = known.of(name, seen_s)
        costs.traced = traced
    assert known.least_traced(100.0) == 1
