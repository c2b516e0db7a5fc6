"""Sums over the runs of each task."""

from __future__ import annotations

from otel_celery_memory.reporter.state.totals import TaskTotal, TaskTotals


def test_runs_and_what_they_retained_and_held_are_added_up() -> None:
    totals = TaskTotals()
    totals.finished("a", None)
    totals.finished("a", 300)
    totals.finished("a", -100)
    totals.retained("a", 50)
    assert totals.largest(5) == [("a", TaskTotal(3, 1, 50, 2, 200))]


def test_a_task_whose_retained_size_comes_before_its_end_counts_too() -> None:
    totals = TaskTotals()
    totals.retained("a", 50)
    assert totals.largest(5) == [("a", TaskTotal(0, 1, 50, 0, 0))]


def test_those_that_retained_most_come_first_and_equals_by_name() -> None:
    totals = TaskTotals()
    for name, size in {"d": 5, "c": -9, "b": 70, "a": 5}.items():
        totals.retained(name, size)
    assert [name for name, _ in totals.largest(3)] == ["b", "a", "d"]
    assert [name for name, _ in totals.largest(9)] == ["b", "a", "d", "c"]


def test_cleared_totals_are_empty() -> None:
    totals = TaskTotals()
    totals.finished("a", 1)
    totals.clear()
    assert totals.largest(5) == []
