"""What runs cost, learned slowly; names bounded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_celery_memory.worker.tracing.budget import (
    NAMES_MAX,
    SLOWDOWN_AT_FIRST,
    KnownCosts,
    TaskCosts,
)


@pytest.fixture
def costs() -> TaskCosts:
    return TaskCosts(0.0, 0.0)


def ran(costs: TaskCosts, cpu_s: float, times: int = 1, wait_s: float = 0.0) -> None:
    for _ in range(times):
        costs.ran(cpu_s, cpu_s + wait_s, 1.0)


def test_the_first_run_s_imports_do_not_count_when_there_is_another(costs: TaskCosts) -> None:
    ran(costs, 5.0)
    assert costs.cpu_s == 5.0
    ran(costs, 0.01)
    assert costs.cpu_s == pytest.approx(0.01)


def test_of_few_runs_it_is_the_mean_and_then_it_follows_slowly(costs: TaskCosts) -> None:
    for cpu_s in (9.0, 1.0, 2.0, 3.0):
        ran(costs, cpu_s)
    assert costs.cpu_s == pytest.approx(2.0)
    ran(costs, 2.0, times=100)
    ran(costs, 100.0, times=8)
    assert 2.0 < costs.cpu_s < 10.0
    ran(costs, 100.0, times=2_000)
    assert costs.cpu_s == pytest.approx(100.0, rel=0.01)


def test_the_longest_run_is_remembered_for_a_while(costs: TaskCosts) -> None:
    ran(costs, 0.1, times=10)
    ran(costs, 0.1, wait_s=9.9)
    assert costs.wall_longest_s == pytest.approx(10.0)
    ran(costs, 0.1, times=5)
    assert 9.0 < costs.wall_longest_s < 10.0
    ran(costs, 0.1, times=8_000)
    assert costs.wall_longest_s < 0.2


@pytest.mark.parametrize(
    ("cpu_s", "aborted", "low", "high"),
    [(0.12, False, 11.0, 12.5), (0.01, False, 1.0, 1.2), (0.001, False, 1.0, 1.2)],
)
def test_the_slowdown_is_that_of_whole_runs_and_never_below_one(
    costs: TaskCosts, cpu_s: float, aborted: bool, low: float, high: float
) -> None:
    ran(costs, 0.01, times=10)
    for _ in range(30):
        costs.was_traced(cpu_s, 2.0, whole=True, aborted=aborted)
    assert low <= costs.slowdown <= high


def test_a_run_that_was_stopped_is_taken_to_be_longer_by_half_at_once(costs: TaskCosts) -> None:
    ran(costs, 0.01, times=10)
    costs.was_traced(0.2, 2.0, whole=True, aborted=True)
    assert costs.slowdown == pytest.approx(30.0)


def test_slices_lead_back_to_what_is_assumed_of_a_new_name(costs: TaskCosts) -> None:
    ran(costs, 0.01, times=10)
    costs.was_traced(0.2, 2.0, whole=True, aborted=True)
    for _ in range(300):
        costs.was_traced(0.2, 2.0, whole=False, aborted=False)
    assert costs.slowdown == pytest.approx(SLOWDOWN_AT_FIRST, rel=0.01)


def test_a_trace_of_a_name_that_never_ran_teaches_no_slowdown(costs: TaskCosts) -> None:
    costs.was_traced(0.2, 2.0, whole=True, aborted=False)
    assert (costs.slowdown, costs.traced) == (SLOWDOWN_AT_FIRST, True)


def test_of_more_names_than_there_is_room_for_the_rest_share_one_place() -> None:
    known = KnownCosts(lambda now_s: now_s)
    for number in range(NAMES_MAX + 50):
        known.of(f"t{number}", float(number))
    assert (len(known._costs), "_other" in known._costs) == (NAMES_MAX, True)
    assert known.of("one more", 300.0) is known.of("and one", 300.0)
    assert known.of("t100", 300.0) is not known.of("one more", 300.0)


def test_a_name_not_seen_for_an_hour_gives_its_place_to_a_new_one() -> None:
    known = KnownCosts(lambda now_s: now_s)
    for number in range(NAMES_MAX):
        known.of(f"t{number}", 0.0)
    for number in range(1, NAMES_MAX):
        known.of(f"t{number}", 0.0).seen_s = 3_000.0
    known.of("late", 3_700.0)
    assert ("late" in known._costs, "t0" in known._costs, "_other" in known._costs) == (
        True,
        False,
        False,
    )
    known.of("too early", 3_800.0)
    assert ("too early" in known._costs, "_other" in known._costs) == (False, True)
    assert len(known._costs) == NAMES_MAX


def test_names_that_ran_lately_are_counted() -> None:
    known = KnownCosts(lambda now_s: now_s)
    for number in range(10):
        known.of(f"t{number}", float(number))
    assert known.seen_since(7.0) == 3


def test_a_name_may_be_met_by_another_thread_while_the_oldest_is_looked_for() -> None:
    class Shared(dict[str, TaskCosts]):
        def __iter__(self) -> Iterator[str]:
            for name in super().__iter__():
                yield name
                self["of another thread"] = TaskCosts(0.0, 20_000.0)

    known = KnownCosts(lambda now_s: 0.0)
    for number in range(NAMES_MAX):
        known.of(str(number), float(number))
    known._costs = Shared(known._costs)
    assert known.of("new", 20_000.0).seen_s == 20_000.0
    assert "0" not in known._costs
