"""First runs of a process that takes the place of another: when they are traced, and how."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.worker.tracing.budget import KnownCosts
from otel_celery_memory.worker.tracing.sampler import LEAST_COST_S, FirstRuns

MOST_S = 0.2
PACE_S = 500.0
BEFORE = Balance(400.0, 1.0, 100.0, 0.1, 0.0, asked_s=490.0, run_s=0.5)


def first_runs(seed: int = 1, before: Balance = BEFORE) -> FirstRuns:
    return FirstRuns(before, MOST_S, PACE_S, random.Random(seed))


def known(*runs: float) -> KnownCosts:
    """Runs of different names, of so many seconds each."""
    made = KnownCosts(lambda _: 0.0)
    for number, run_s in enumerate(runs):
        made.of(str(number), 0.0).ran(run_s / 2, run_s, 0.0)
    return made


def test_they_are_traced_where_a_process_was_there_before_and_ran_tasks() -> None:
    assert first_runs().are_traced
    assert not first_runs(before=Balance()).are_traced


def test_what_one_may_cost_is_between_little_and_as_much_as_any_run_may() -> None:
    costs = sorted(first_runs(seed).cost_s for seed in range(1_000))
    assert costs[0] >= LEAST_COST_S
    assert costs[-1] <= MOST_S
    # Each factor of ten as often as any other.
    assert costs[500] == pytest.approx((LEAST_COST_S * MOST_S) ** 0.5, rel=0.2)


def test_they_wait_from_where_a_run_in_the_slot_was_last_asked_for() -> None:
    waits = [first_runs(seed).due_s(7.0) - BEFORE.asked_s for seed in range(2_000)]
    assert min(waits) >= 0.0
    assert sum(waits) / len(waits) == pytest.approx(7.0, rel=0.1)


def test_a_time_that_is_still_to_come_is_not_waited_from() -> None:
    damaged = Balance(400.0, 1.0, 100.0, 0.1, 0.0, asked_s=1e11)
    assert first_runs(before=damaged).due_s(0.0) == PACE_S


def test_where_runs_take_long_half_are_seen_in_part_from_any_moment_of_them() -> None:
    plans = [first_runs(seed).plan() for seed in range(1_000)]
    begins = sorted(plan.begin_after_s for plan in plans if plan.begin_after_s is not None)
    assert 350 < len(begins) < 550
    assert 0.0 <= begins[0] < 0.05
    assert 0.45 < begins[-1] <= BEFORE.run_s


def test_where_runs_are_short_they_are_seen_whole() -> None:
    short = Balance(400.0, 1.0, 100.0, 0.1, 0.0, run_s=LEAST_COST_S / 7)
    plans = [first_runs(seed, short).plan() for seed in range(100)]
    assert {plan.begin_after_s for plan in plans} == {None}


def test_what_the_last_one_traced_has_cost_is_the_least_for_the_next() -> None:
    first = first_runs()
    first.was_traced(0.03, aborted=False)
    _, _, least_s = first.left(known(), 1, PACE_S)
    costs = [first_runs(seed, replace(BEFORE, first_s=least_s)).cost_s for seed in range(200)]
    assert (least_s, min(costs) >= 0.03, max(costs) <= MOST_S) == (0.03, True, True)


@pytest.mark.parametrize(
    ("cost_s", "least_s"), [(0.02, 0.04), (0.03, MOST_S / 4), (5.0, MOST_S / 4)]
)
def test_what_one_that_was_stopped_would_have_cost_is_taken_to_be_twice_as_much(
    cost_s: float, least_s: float
) -> None:
    first = first_runs()
    first.was_traced(cost_s, aborted=True)
    assert first.left(known(), 1, PACE_S)[2] == least_s


def test_a_least_that_would_seldom_be_there_to_be_spent_is_less() -> None:
    damaged = [first_runs(seed, replace(BEFORE, first_s=1e11)).cost_s for seed in range(200)]
    assert MOST_S / 4 <= min(damaged) < MOST_S / 3
    assert max(damaged) <= MOST_S


def test_what_is_left_is_when_the_last_run_began_and_how_long_runs_took() -> None:
    assert first_runs().left(known(), 0, PACE_S + 8) == (490.0, 0.5, LEAST_COST_S)
    assert first_runs().left(known(), 1, PACE_S + 8)[:2] == (PACE_S, 0.5)
    assert first_runs().left(known(0.25), 0, PACE_S + 8)[:2] == (PACE_S, 0.25)
    assert first_runs().left(known(1.0, 2.0, 3.0), 1, PACE_S + 8)[:2] == (PACE_S + 6, 2.0)
