"""When windows begin and end, so that tracing stays within its budget."""

from __future__ import annotations

import random

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.ipc.records import SHARED_NAME
from otel_celery_memory.worker.tracing.sampler import TracingSampler

BUDGET, LATENCY_S = 0.01, 0.25


class Process:
    """A process whose tasks run one after the other; ``slower`` under tracing."""

    def __init__(
        self, slower: float = 5.0, before: Balance | None = None, now_s: float = 1_000.0
    ) -> None:
        self.now_s = now_s
        self.sampler = TracingSampler(BUDGET, LATENCY_S, self.now_s, random.Random(7), before)
        self.slower = slower
        self.open = False
        self.window_s = 0.0
        self.windows: list[dict[str, int]] = []

    def run(self, name: str, cpu_s: float, wall_s: float = 0.0, limit_s: float = 0.0) -> bool:
        """A run; whether it was traced."""
        sampler = self.sampler
        plan = sampler.goes_on(name, self.now_s, limit_s) if self.open else None
        if self.open and plan is None:
            self.close()
        if plan is None and sampler.due(name, self.now_s):
            plan = sampler.plan(name, self.now_s, limit_s, guarded=True)
            if plan is not None:
                self.open, self.window_s = True, 0.0
                self.windows.append({})
        used_s = cpu_s if plan is None else cpu_s * self.slower
        aborted = plan is not None and used_s - plan.expected_s > plan.allowance_s
        if plan is not None and aborted:
            used_s = plan.expected_s + plan.allowance_s
        self.now_s += max(used_s, wall_s)
        sampler.worked(used_s)
        if plan is None:
            sampler.ran(name, used_s, max(used_s, wall_s), self.now_s)
            return False
        self.window_s += used_s - cpu_s
        sampler.spend(max(used_s - cpu_s, 0.0), self.now_s)
        sampler.run_traced(name, used_s, self.now_s, aborted=aborted)
        window = self.windows[-1]
        window[name] = window.get(name, 0) + 1
        if aborted or sum(window.values()) >= 40:
            self.close()
        return True

    def close(self) -> None:
        self.open = False
        self.sampler.window_closed(self.window_s, self.now_s)

    def spent(self) -> tuple[float, float]:
        """Seconds spent, and of task time."""
        return self.sampler.bucket.spent_s, self.sampler.bucket.task_s


def test_small_runs_have_windows_of_many_and_stay_within_the_budget() -> None:
    process = Process()
    for _ in range(200_000):
        process.run("a", 0.001, wall_s=0.01)
    spent_s, task_s = process.spent()
    assert spent_s <= BUDGET * task_s + LATENCY_S
    assert spent_s > 0.4 * BUDGET * task_s
    assert sum(window["a"] >= 12 for window in process.windows) > len(process.windows) / 2


def test_a_heavy_task_does_not_starve_the_small_ones() -> None:
    process = Process()
    for number in range(50_000):
        process.run("heavy", 2.0) if number % 10 == 0 else process.run(f"small{number % 3}", 0.002)
    names = {name for window in process.windows for name in window}
    assert names >= {"small0", "small1", "small2"}
    small = sum(n for window in process.windows for name, n in window.items() if name != "heavy")
    assert small > 1_000
    spent_s, task_s = process.spent()
    assert spent_s <= BUDGET * task_s + LATENCY_S


def test_a_rare_name_is_traced_about_as_often_as_a_frequent_one_has_windows() -> None:
    process = Process()
    for number in range(100_000):
        process.run("rare" if number % 200 == 0 else "often", 0.001, wall_s=0.01)
    assert sum(window.get("rare", 0) for window in process.windows) >= 5


def test_how_much_slower_a_longer_run_gets_is_tried_and_then_known() -> None:
    process = Process(slower=1.5)
    for _ in range(5_000):
        process.run("long", 0.06, wall_s=0.2)
    assert sum(window.get("long", 0) for window in process.windows) > 30
    spent_s, task_s = process.spent()
    assert spent_s <= BUDGET * task_s + LATENCY_S


def test_one_traced_run_that_does_something_once_is_not_taken_for_slow_tracing() -> None:
    process = Process(slower=3.0)
    for _ in range(100):
        process.run("polls", 0.004, wall_s=0.2)
    # The first traced run opens a connection: it takes 60 times as long as others.
    process.slower = 60.0
    while not process.run("polls", 0.004, wall_s=0.2):
        continue
    process.slower = 3.0
    assert sum(process.run("polls", 0.004, wall_s=0.2) for _ in range(1_000)) >= 20
    assert process.sampler.refused() == {"polls": ""}


def test_a_run_that_gets_too_slow_is_tried_seldom() -> None:
    process = Process(slower=50.0)
    for _ in range(20_000):
        process.run("slow", 0.05, wall_s=0.2)
    spent_s, task_s = process.spent()
    assert 0 < spent_s <= BUDGET * task_s + LATENCY_S


def test_a_run_that_could_reach_its_time_limit_is_not_traced() -> None:
    process = Process()
    assert not any(process.run("a", 0.001, limit_s=0.4) for _ in range(2_000))
    assert process.sampler.refused() == {"a": "time_limit"}
    assert any(process.run("a", 0.001, limit_s=10.0) for _ in range(20_000))
    assert process.sampler.refused() == {"a": ""}


def test_why_a_name_is_not_traced_is_known_and_want_of_budget_is_no_reason() -> None:
    process = Process(slower=50.0)
    for _ in range(2_000):
        process.run("slow", 0.05, wall_s=0.2)
        process.run("quick", 0.001, wall_s=0.2)
    assert process.sampler.refused() == {"slow": "slow", "quick": ""}


def test_the_first_runs_of_a_process_are_not_traced() -> None:
    assert [Process().run("a", 0.001) for _ in range(3)] == [False] * 3


def test_where_processes_live_for_a_run_that_one_is_traced_within_the_budget() -> None:
    balance = Balance(task_s=50.0, recent_task_s=20.0, at_s=1_000.0, runs=1.0, run_s=0.001)
    traced = 0
    for _ in range(2_000):
        process = Process(before=balance, now_s=balance.at_s + 0.1)
        traced += process.run("a", 0.01)
        balance = process.sampler.balance(process.now_s)
    assert 0 < traced < 2_000
    assert balance.spent_s <= BUDGET * balance.task_s + LATENCY_S


def test_while_the_heap_grows_windows_may_use_two_per_cent_of_a_core_besides() -> None:
    def spent_s(*, grows: bool) -> float:
        process = Process()
        for _ in range(2_000):
            process.run("a", 0.001, wall_s=1.0)
            if grows:
                process.sampler.heap_has_grown(1.0)
        return process.spent()[0]

    assert spent_s(grows=True) > 5 * spent_s(grows=False)
    assert spent_s(grows=True) <= 2_000 * 0.02 + LATENCY_S


def test_a_window_of_runs_that_overlap_waits_until_it_may_have_more_of_them() -> None:
    def runs(name: str) -> int:
        process = Process(slower=9.0)
        while len(process.windows) < 6:
            process.run(name, 0.003, 0.02)
        return min(sum(window.values()) for window in process.windows[1:-1])

    assert runs(SHARED_NAME) > runs("a") > 0


def test_a_name_that_never_had_the_process_to_itself_is_traced_as_those_that_overlap() -> None:
    process = Process()
    for _ in range(10):
        process.run(SHARED_NAME, 0.001)
    assert process.sampler.goes_on("new", process.now_s, None) is not None
    alone = Process()
    for _ in range(10):
        alone.run("a", 0.001)
    assert alone.sampler.goes_on("new", alone.now_s, None) is None


def test_a_window_in_which_no_run_ends_is_not_longer_than_the_budget_lasts() -> None:
    process = Process(slower=8.0)
    for _ in range(100):
        process.run(SHARED_NAME, 0.004)
    while not process.run(SHARED_NAME, 0.004):
        continue
    sampler = process.sampler
    assert sampler.goes_on(SHARED_NAME, process.now_s, None) is not None
    left_s = sampler.bucket.left_s(1.0, process.now_s)
    assert sampler.goes_on(SHARED_NAME, process.now_s, None, unbooked_s=left_s / 10) is not None
    assert sampler.goes_on(SHARED_NAME, process.now_s, None, unbooked_s=2 * left_s) is None
