"""The sampler's rules: what it learns, when a name's turn comes, how a run is traced."""

from __future__ import annotations

import random

import pytest

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.worker.tracing.sampler import (
    FIXED_COST_S,
    LEAST_SLICE_S,
    Plan,
    TracingSampler,
)

BUDGET, LATENCY_S = 0.01, 0.25


class Process:
    """A sampler on a clock, whose runs take what a test says."""

    def __init__(
        self, budget: float = BUDGET, before: Balance | None = None, now_s: float = 1_000.0
    ) -> None:
        self.now_s = now_s
        self.sampler = TracingSampler(budget, LATENCY_S, self.now_s, random.Random(7), before)

    def run(
        self, task: str = "a", cpu_s: float = 0.01, wait_s: float = 0.0, times: int = 1
    ) -> None:
        """Runs that are not traced."""
        for _ in range(times):
            self.due(task)
            self.now_s += cpu_s + wait_s
            self.sampler.worked(cpu_s)
            self.sampler.ran(task, cpu_s, cpu_s + wait_s, self.now_s)

    def traced(
        self, task: str = "a", cpu_s: float = 0.05, *, whole: bool = True, aborted: bool = False
    ) -> None:
        """A run that was."""
        self.now_s += cpu_s
        self.sampler.worked(cpu_s)
        self.sampler.traced(task, cpu_s, 0.0, self.now_s, whole=whole, aborted=aborted)

    def due(self, task: str = "a") -> bool:
        return self.sampler.due(task, self.now_s)

    def plan(self, task: str = "a", limit_s: float | None = None) -> Plan | None:
        return self.sampler.plan(task, self.now_s, limit_s)

    def until_due(self, task: str = "a", cpu_s: float = 0.01) -> float:
        """Task time until the name's turn comes."""
        began_s = self.sampler.bucket.task_s
        while not self.due(task):
            self.run(task, cpu_s)
        return self.sampler.bucket.task_s - began_s


def test_the_first_run_of_a_name_is_not_traced_and_the_second_is() -> None:
    process = Process()
    assert not process.due()
    process.run()
    assert process.due()
    assert process.plan() == Plan(allowance_s=0.95 * LATENCY_S / 2)


def test_a_short_run_is_traced_whole_and_a_long_one_in_a_slice_that_begins_in_it() -> None:
    process = Process()
    process.run("short", 0.001, times=500)
    process.run("long", 30.0, wait_s=10.0, times=3)
    whole, piece = process.plan("short"), process.plan("long")
    assert whole is not None
    assert whole.begin_after_s is None
    assert piece is not None
    assert piece.begin_after_s is not None
    assert 0 <= piece.begin_after_s <= 40


def test_slices_begin_at_other_moments_each_time_and_in_every_part_of_the_run() -> None:
    process = Process(budget=0.5)
    process.run("long", 30.0, times=3)
    begins = []
    for _ in range(200):
        process.run("long", 30.0, times=5)
        plan = process.plan("long")
        if plan is not None and plan.begin_after_s is not None:
            begins.append(plan.begin_after_s)
    assert len(begins) > 100
    assert [any(at <= b < at + 3 for b in begins) for at in range(0, 30, 3)] == [True] * 10


def test_no_plan_allows_more_than_the_latency_and_none_more_than_there_is() -> None:
    chance = random.Random(1)
    process = Process()
    for _ in range(3_000):
        task = chance.choice("abc")
        process.run(task, chance.expovariate(20))
        plan = process.plan(task) if process.due(task) else None
        if plan is not None:
            assert 0 < plan.allowance_s <= LATENCY_S
            process.traced(task, plan.allowance_s)


def test_after_a_trace_a_name_waits_until_its_share_has_earned_what_it_cost() -> None:
    process = Process()
    process.run(times=100)
    process.traced(cpu_s=0.06)
    assert not process.due()
    # 0.05 s at 0.85 of 1 % is 5.9 s, of which half to one and a half is drawn.
    assert 2.9 <= process.until_due() <= 8.9


def test_a_name_alone_earns_more_than_one_of_many() -> None:
    waits = []
    for names in (1, 10):
        process = Process()
        for _ in range(30):
            for number in range(names):
                process.run(f"t{number}", 0.05, wait_s=1.0)
        process.sampler.spend(0.0, process.now_s + 11)
        process.traced("t0", 0.1)
        waits.append(process.until_due("t0"))
    assert waits[1] > 2.5 * waits[0]


def test_what_a_whole_run_cost_is_what_it_took_longer_and_a_quarter_at_least() -> None:
    process = Process()
    process.run(cpu_s=0.01, times=50)
    for cpu_s, spent_s in ((0.05, 0.04), (0.01, 0.0025), (0.004, 0.001)):
        before_s = process.sampler.bucket.spent_s
        process.traced(cpu_s=cpu_s)
        assert process.sampler.bucket.spent_s - before_s == pytest.approx(spent_s)


@pytest.mark.parametrize(("whole", "aborted"), [(False, False), (True, True)])
def test_of_a_slice_or_an_aborted_run_all_of_it_is_taken_as_cost(
    whole: bool, aborted: bool
) -> None:
    process = Process()
    process.run(cpu_s=0.01, times=50)
    process.traced(cpu_s=0.08, whole=whole, aborted=aborted)
    assert process.sampler.bucket.spent_s == pytest.approx(0.08)


def test_a_run_that_was_stopped_is_sliced_next_time() -> None:
    process = Process()
    process.run(cpu_s=0.02, times=2_000)
    whole = process.plan()
    assert whole is not None
    assert whole.begin_after_s is None
    process.traced(cpu_s=LATENCY_S, aborted=True)
    process.run(cpu_s=0.02, times=5_000)
    piece = process.plan()
    assert piece is not None
    assert piece.begin_after_s is not None


def test_that_it_was_stopped_is_forgotten_in_time() -> None:
    process = Process()
    process.run(cpu_s=0.02, times=2_000)
    process.traced(cpu_s=LATENCY_S, aborted=True)
    plans = []
    for _ in range(100):
        process.run(cpu_s=0.02, times=2_000)
        plan = process.plan()
        if plan is not None:
            plans.append(plan.begin_after_s is None)
            process.traced(cpu_s=0.02 * 3 if plans[-1] else LATENCY_S, whole=plans[-1])
    assert (plans[0], plans[-1]) == (False, True)


@pytest.mark.parametrize(("limit_s", "planned"), [(None, True), (60.0, True), (3.4, False)])
def test_a_run_that_could_reach_its_time_limit_is_left_alone(
    limit_s: float | None, planned: bool
) -> None:
    process = Process()
    process.run(cpu_s=0.1, wait_s=2.9, times=50)
    assert (process.plan(limit_s=limit_s) is not None) is planned
    assert process.due() is planned


def test_a_first_run_in_a_new_process_is_left_alone_where_it_has_a_limit() -> None:
    process = Process(before=Balance(1_000.0, 1.0, 100.0, 0.1, 1_000.0))
    process.sampler.worked(50.0)
    assert process.due()
    assert process.plan(limit_s=3_600.0) is None
    assert not process.due()
    process.sampler.worked(50.0)
    assert process.plan() is not None


def test_a_name_whose_limit_is_too_near_is_asked_about_again_later() -> None:
    process = Process()
    process.run(cpu_s=0.1, times=50)
    assert process.plan(limit_s=0.2) is None
    process.until_due()
    assert process.plan(limit_s=60.0) is not None


def test_without_funds_nothing_is_planned_and_the_question_is_not_asked_at_every_run() -> None:
    process = Process()
    process.run(times=50)
    process.sampler.spend(5.0, process.now_s)
    assert process.plan() is None
    asked = 0
    for _ in range(100):
        process.run(cpu_s=0.001)
        if process.due():
            asked += 1
            assert process.plan() is None
    assert 1 <= asked <= 15


def test_a_slice_that_came_too_late_costs_the_guard_and_the_run_is_learned_from() -> None:
    process = Process()
    process.run(cpu_s=5.0)
    for _ in range(200):
        process.run(cpu_s=0.001)
        process.sampler.watched_for_nothing(process.now_s)
    assert 0 < process.sampler.bucket.spent_s < 0.05
    process.run(times=10_000)
    plan = process.plan()
    assert plan is not None
    assert plan.begin_after_s is None


def test_a_run_s_next_slice_waits_for_its_turn_and_has_what_the_run_may_still_lose() -> None:
    process = Process()
    process.run("long", 60.0, times=20)
    assert process.sampler.next_slice("long", process.now_s, 0.1) == Plan(0.1, 0.0)
    process.traced("long", 0.1, whole=False)
    assert process.sampler.next_slice("long", process.now_s, 0.1) is None
    process.run("long", 60.0, times=20)
    assert process.sampler.next_slice("long", process.now_s, LEAST_SLICE_S / 2) is None


def test_what_could_not_be_traced_is_asked_about_again_later() -> None:
    process = Process()
    process.run(times=10)
    process.sampler.postpone("a", process.now_s)
    assert not process.due()
    assert process.until_due() < 1.5 * FIXED_COST_S / (0.85 * BUDGET) + 0.02


def test_an_idle_process_traces_its_rare_small_task_now_and_then() -> None:
    process = Process()
    traced = 0
    for _ in range(48):
        process.now_s += 3_600.0
        process.run(cpu_s=0.001)
        if process.due() and process.plan() is not None:
            traced += 1
            process.traced(cpu_s=0.006)
    assert traced > 24


def test_a_successor_begins_with_what_the_one_before_earned_and_spent() -> None:
    process = Process()
    process.run(times=1_000)
    process.traced(cpu_s=0.2)
    balance = process.sampler.balance(process.now_s)
    assert balance.task_s == pytest.approx(10.2)
    assert balance.spent_s == pytest.approx(process.sampler.bucket.spent_s)
    successor = Process(before=balance, now_s=process.now_s)
    assert successor.sampler.balance(process.now_s) == balance


def test_a_successor_s_names_are_new_to_it_only_and_wait_their_turn() -> None:
    first_due = []
    for seed in range(50):
        before = Balance(1_000.0, 1.0, 100.0, 0.1, 0.0, asked_s=1_000.0)
        sampler = TracingSampler(BUDGET, LATENCY_S, 0.0, random.Random(seed), before)
        first_due.append(sampler.due("a", 0.0))
        sampler.worked(30.0)
        first_due.append(sampler.due("b", 2.0))
    # None at its birth; from then on even in its first run, which may be the only one.
    assert not any(first_due[::2])
    assert sum(first_due[1::2]) > 40


def test_processes_that_run_one_task_each_trace_their_only_run_in_time() -> None:
    balance, traced = Balance(), []
    now_s, cpu_s = 1_000.0, 0.01
    for child in range(5_000):
        sampler = TracingSampler(BUDGET, LATENCY_S, now_s, random.Random(child), balance)
        plan = sampler.plan("a", now_s) if sampler.due("a", now_s) else None
        now_s += cpu_s
        sampler.worked(cpu_s)
        if plan is None:
            sampler.ran("a", cpu_s, cpu_s, now_s)
        else:
            traced.append(plan)
            sampler.traced("a", plan.allowance_s, 0.0, now_s, whole=True, aborted=True)
        balance = sampler.balance(now_s)
    assert len(traced) > 2
    assert balance.spent_s > BUDGET * balance.task_s / 5
    assert balance.spent_s == sum(plan.allowance_s for plan in traced)
    assert balance.spent_s < BUDGET * balance.task_s + LATENCY_S


def test_a_first_run_that_has_a_time_limit_is_left_alone() -> None:
    sampler = TracingSampler(
        BUDGET, LATENCY_S, 0.0, random.Random(1), Balance(1_000.0, 0.0, 1_000.0)
    )
    assert sampler.due("a", 0.0)
    assert sampler.plan("a", 0.0, limit_s=3_600.0) is None
    assert not sampler.due("a", 0.0)


def test_funds_decay_with_time_and_not_with_the_number_of_looks() -> None:
    once, often = Process(), Process()
    for process in (once, often):
        process.run(cpu_s=0.5, times=200)
        process.sampler.spend(0.3, process.now_s)
    for _ in range(100):
        often.now_s += 2.0
        often.sampler.balance(often.now_s)
    once.now_s += 200.0
    assert once.sampler.balance(once.now_s).recent_spent_s == pytest.approx(
        often.sampler.balance(often.now_s).recent_spent_s
    )


def test_a_clock_that_goes_back_is_no_error() -> None:
    process = Process()
    process.run(times=10)
    process.now_s -= 500.0
    process.run(times=10)
    process.plan()
    process.traced()
