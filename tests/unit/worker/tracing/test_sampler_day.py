"""24 virtual hours of a worker with mixed tasks: what tracing costs, and how often each is seen.

The bounds on how long a name is not seen have a margin of a third over the worst of twenty seeds.
"""

from __future__ import annotations

import pytest

from tests.unit.worker.tracing.simulation import HOUR_S, Kind, Worker

BUDGET, LATENCY_S = 0.01, 0.25
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3))]
HOURS = 24
QUIET_HOURS = (10.0, 14.0)

STEADY = [
    Kind("heavy", every_s=0.4, cpu_s=0.012, slowdown=12),
    Kind("long and heavy", every_s=5, cpu_s=1.0, slowdown=12),
    Kind("tiny", every_s=0.4, cpu_s=0.0004, slowdown=15),
    Kind("tail", every_s=4, cpu_s=0.005, slowdown=5, spread=1.5),
    Kind("waiting", every_s=20, cpu_s=0.003, slowdown=4, wait_s=2.0),
    Kind("middling", every_s=40, cpu_s=0.5, slowdown=1.3),
]
"""Each runs at least once in almost every minute of the working hours."""
RARE = [
    Kind("rare and long", every_s=1.5 * HOUR_S, cpu_s=30, slowdown=10, wait_s=5, at_night=True),
    Kind("rare and small", every_s=HOUR_S, cpu_s=0.001, slowdown=6, at_night=True),
]
BURSTS = [
    Kind("burst", 0.006, 0.002, 8, from_s=hour * HOUR_S, to_s=hour * HOUR_S + 30, burst=True)
    for hour in range(2, HOURS, 5)
]
NEW = [
    Kind(f"new {hour}", 20, 0.005, 5, from_s=hour * HOUR_S, to_s=(hour + 1) * HOUR_S)
    for hour in range(HOURS)
    if not QUIET_HOURS[0] <= hour < QUIET_HOURS[1]
]
MIXED = [*STEADY, *RARE, *BURSTS, *NEW]


SEEN_WITHIN_S = 30 * 60.0
RECYCLED_SEEN_WITHIN_S = 3.5 * HOUR_S
ONE_RUN_SEEN_WITHIN_S = 5 * HOUR_S
FIRST_SEEN_WITHIN_S = 10 * 60.0


def names(kinds: list[Kind]) -> set[str]:
    return {kind.name for kind in kinds}


@pytest.mark.parametrize("seed", SEEDS)
def test_over_a_day_of_mixed_tasks_tracing_keeps_to_its_budget_and_sees_every_task(
    seed: int,
) -> None:
    """Every ten minutes and the day cost under 1 % of their task time (or 0.25 s, if that is more).

    No run is delayed by more than 0.25 s. Every name is traced; one that runs every minute is so
    at least once in any 30 minutes in which it runs, a new one within 10 minutes of its first run.
    A third of the budget is used, so it is not too timid.
    """
    day = Worker(MIXED, HOURS, seed, BUDGET, LATENCY_S, quiet_hours=QUIET_HOURS).run()
    assert day.overspent(BUDGET, LATENCY_S) == []
    assert BUDGET / 3 < day.share() <= BUDGET
    assert day.longest_delay_s <= LATENCY_S
    assert set(day.traced_s) == set(day.ran_s) == names(MIXED)
    unseen_s = {name: day.longest_unseen_s(name) for name in names(STEADY)}
    assert {name: s for name, s in unseen_s.items() if s >= SEEN_WITHIN_S} == {}
    first_s = {name: day.first_trace_after_s(name) for name in names(NEW)}
    assert {name: s for name, s in first_s.items() if s >= FIRST_SEEN_WITHIN_S} == {}


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_where_children_are_recycled_every_hundred_tasks_the_budget_is_their_slots(
    seed: int,
) -> None:
    """The same budget over processes that hand over what they earned and spent.

    Every name is traced that runs every minute, at least once in any 3.5 hours in which it runs:
    a child lives so short that it sees some names once or not at all.
    """
    kinds = [*STEADY, *BURSTS]
    day = Worker(kinds, 12, seed, BUDGET, LATENCY_S, tasks_per_child=100).run()
    assert day.overspent(BUDGET, LATENCY_S) == []
    assert BUDGET / 4 < day.share() <= BUDGET
    assert day.longest_delay_s <= LATENCY_S
    unseen_s = {name: day.longest_unseen_s(name) for name in names(STEADY)}
    assert {name: s for name, s in unseen_s.items() if s >= RECYCLED_SEEN_WITHIN_S} == {}


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_where_each_child_runs_one_task_its_only_run_may_be_traced(seed: int) -> None:
    """The same budget. Every name is traced, at least once in any five hours in which it runs if
    that is three times a minute.

    Small runs are seen whole, more often than stopped; long ones also from a later moment on.
    """
    kinds = [kind for kind in STEADY if kind.every_s <= 30]
    worker = Worker(kinds, 12, seed, BUDGET, LATENCY_S, tasks_per_child=1)
    day = worker.run()
    assert day.overspent(BUDGET, LATENCY_S) == []
    assert BUDGET / 5 < day.share() <= BUDGET
    assert day.longest_delay_s <= LATENCY_S
    unseen_s = {name: day.longest_unseen_s(name) for name in names(kinds)}
    assert {name: s for name, s in unseen_s.items() if s >= ONE_RUN_SEEN_WITHIN_S} == {}
    assert day.whole["tiny"] > 100
    assert day.whole["heavy"] > 0
    assert max(day.slices_s["long and heavy"]) > 0.5
