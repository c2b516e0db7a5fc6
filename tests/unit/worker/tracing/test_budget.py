"""Spendings of the last ten minutes: whatever comes, none of them cost more than they may."""

from __future__ import annotations

import random

import pytest

from otel_celery_memory.worker.tracing.budget import RollingWindow

BUDGET, FLOOR_S = 0.01, 0.25


@pytest.fixture
def spending() -> RollingWindow:
    return RollingWindow(BUDGET, FLOOR_S)


def test_at_first_there_is_what_one_run_may_cost(spending: RollingWindow) -> None:
    assert spending.left_s(0.0, 0.0) == FLOOR_S
    assert spending.left_s(1e6, 1e6) == FLOOR_S


def test_what_was_spent_is_missing_until_tasks_have_worked_for_it(spending: RollingWindow) -> None:
    spending.spend(0.2, 100.0, 50.0)
    assert spending.left_s(100.0, 50.0) == pytest.approx(0.05)
    assert spending.left_s(125.0, 70.0) == pytest.approx(0.05)
    assert spending.left_s(140.0, 90.0) == pytest.approx(0.2)
    assert spending.left_s(200.0, 150.0) == FLOOR_S


def test_after_ten_minutes_it_is_forgotten_whether_tasks_worked_or_not(
    spending: RollingWindow,
) -> None:
    spending.spend(0.2, 0.0, 0.0)
    assert spending.left_s(0.0, 600.0) == pytest.approx(0.05)
    assert spending.left_s(0.0, 600.1) == FLOOR_S


def test_what_cost_more_than_it_may_leaves_less_than_nothing(spending: RollingWindow) -> None:
    spending.spend(2.0, 0.0, 0.0)
    assert spending.left_s(100.0, 60.0) == pytest.approx(-1.0)


def test_many_small_spendings_are_held_in_few_steps(spending: RollingWindow) -> None:
    for number in range(60_000):
        spending.spend(0.0001, number * 0.01, number * 0.01)
    assert len(spending._steps) <= 61


@pytest.mark.parametrize("seed", range(20))
def test_no_ten_minutes_cost_more_than_their_share_whenever_tasks_stop_and_go_on(
    seed: int,
) -> None:
    chance = random.Random(seed)
    spending = RollingWindow(BUDGET, FLOOR_S)
    now_s = task_s = 0.0
    spent: list[tuple[float, float, float]] = []
    for _ in range(3_000):
        busy = chance.choice((0.0, 0.01, 0.5, 1.0))
        step_s = chance.expovariate(1 / chance.choice((0.1, 5.0, 60.0)))
        now_s += step_s
        task_s += busy * step_s
        left_s = spending.left_s(task_s, now_s)
        if left_s > 0:
            amount_s = left_s * chance.choice((0.1, 1.0))
            spending.spend(amount_s, task_s, now_s)
            spent.append((now_s, task_s, amount_s))
    for first, (began_s, before_s, _) in enumerate(spent):
        total_s = 0.0
        for at_s, worked_s, amount_s in spent[first:]:
            if at_s - began_s > 600.0:
                break
            total_s += amount_s
            assert total_s <= max(BUDGET * (worked_s - before_s), FLOOR_S) + 1e-9
