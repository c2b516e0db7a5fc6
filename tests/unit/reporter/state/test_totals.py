"""Sums over the runs of each task."""

from __future__ import annotations

from otel_celery_memory.reporter.state.totals import TaskTotals
from tests.unit.examples import left_behind

S = 1_000_000_000


def sampled(totals: TaskTotals, *sizes: int | None, task: str = "a", at_s: int = 0) -> TaskTotals:
    for size in sizes:
        totals.left_behind(task, left_behind(size, blocks=2, time_ns=at_s * S))
    return totals


def test_runs_and_what_they_held_when_traced_are_added_up() -> None:
    totals = TaskTotals()
    totals.finished("a", None)
    totals.finished("a", 300)
    totals.finished("a", -100)
    [(name, total)] = totals.largest(5)
    assert (name, total.runs, total.traced_runs, total.traced_bytes) == ("a", 3, 2, 200)


def test_a_task_leaves_behind_the_mean_of_its_samples_once_there_are_three() -> None:
    totals = sampled(TaskTotals(), 40, -10)
    assert totals.heap_bytes_per_run("a") is None
    assert sampled(totals, 60).heap_bytes_per_run("a") == 30
    assert totals.heap_bytes_per_run("unknown") is None


def test_what_a_first_run_left_is_not_in_the_mean() -> None:
    totals = sampled(TaskTotals(), 10, 10, 10)
    totals.left_behind("a", left_behind(40_000_000, warm_up=1))
    assert totals.heap_bytes_per_run("a") == 10


def test_of_ten_samples_the_largest_is_no_leak_as_it_happened_once() -> None:
    assert sampled(TaskTotals(), *[0] * 9, 8_000_000).heap_bytes_per_run("a") == 0
    assert sampled(TaskTotals(), *[100] * 9, -8_000_000).heap_bytes_per_run("a") == 100


def test_a_cache_that_has_filled_up_is_forgotten_within_two_intervals_of_samples() -> None:
    totals = sampled(TaskTotals(), *[500_000] * 10)
    for at_s in (40, 80):
        sampled(totals, *[0] * 10, at_s=at_s)
    assert totals.heap_bytes_per_run("a") == 0


def test_a_rare_task_is_still_known_hours_later_and_by_its_newest_runs_then() -> None:
    totals = TaskTotals()
    for hour in range(3):
        sampled(totals, 100, at_s=hour * 3_600)
    assert totals.heap_bytes_per_run("a") == 100


def test_without_malloc_s_counter_blocks_are_known_alone() -> None:
    totals = sampled(TaskTotals(), None, None, None)
    [(_, total)] = totals.largest(1)
    assert totals.heap_bytes_per_run("a") is None
    assert total.left_behind.per_run("blocks") == 2


def test_those_whose_runs_left_most_in_all_come_first_and_equals_by_name() -> None:
    totals = TaskTotals()
    for name, size in {"d": 5, "c": -9, "b": 70, "a": 5}.items():
        totals.finished(name, None)
        sampled(totals, size, size, size, task=name)
    for _ in range(20):
        totals.finished("a", None)
    assert [name for name, _ in totals.largest(9)] == ["a", "b", "d", "c"]


def test_cleared_totals_are_empty() -> None:
    totals = TaskTotals()
    totals.finished("a", 1)
    totals.clear()
    assert totals.largest(5) == []
