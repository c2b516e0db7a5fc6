"""Captures that a person asked for: which runs they are of, each taken once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from otel_celery_memory.ipc.commands import Commands
from tests.unit.worker.tracing.process_tracing import Tracing

RUNS = Commands("", 5, 3, False, 1_100.0, 1.0)
TIMED = replace(RUNS, capture=6, runs=0, until_s=1_001.0)


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    made = Tracing()
    made.tracing.budgeted = False
    yield made
    made.down()
    assert not tracemalloc.is_tracing()


def test_the_next_runs_are_traced_whole_and_told_as_the_capture_s(tracing: Tracing) -> None:
    tracing.tracing.apply(RUNS)
    traced = [tracing.run(name, blocks) for blocks, name in enumerate("abcd", start=1)]
    tracing.tracing.starting()
    assert traced == [True, True, True, False]
    assert tracing.windows() == [
        ("COMPLETE", "a", 5, 0, 1),
        ("COMPLETE", "b", 5, 0, 2),
        ("COMPLETE", "c", 5, 0, 3),
    ]


def test_of_one_task_its_runs_alone_are_traced(tracing: Tracing) -> None:
    tracing.tracing.apply(replace(RUNS, task="b"))
    traced = [tracing.run(name) for name in "abcbabb"]
    assert traced == [False, True, False, True, False, True, False]
    tracing.tracing.starting()
    assert [window[1] for window in tracing.windows()] == ["b", "b", "b"]


def test_runs_that_begin_before_its_time_is_over_are_traced(tracing: Tracing) -> None:
    tracing.tracing.apply(TIMED)
    traced = [tracing.run(cpu_s=0.15) for _ in range(6)]
    assert traced == [True, True, True, True, False, False]


def test_the_same_order_seen_again_is_not_a_new_capture(tracing: Tracing) -> None:
    for _ in range(3):
        tracing.tracing.apply(RUNS)
        tracing.run()
    assert len(tracing.windows()) == 2
    tracing.run()
    tracing.tracing.apply(replace(RUNS, mode="budget"))
    assert not tracing.run()
    tracing.tracing.apply(replace(RUNS, capture=7))
    assert tracing.run()


def test_an_order_whose_time_is_over_is_none(tracing: Tracing) -> None:
    tracing.tracing.apply(replace(RUNS, until_s=999.0))
    assert not tracing.run()


def test_what_a_capture_costs_is_not_the_budget_s(tracing: Tracing) -> None:
    tracing.tracing.budgeted = True
    tracing.run()
    tracing.tracing.apply(RUNS)
    for _ in range(3):
        assert tracing.run(cpu_s=0.5)
    tracing.tracing.starting()
    assert tracing.page.load(0).spent_s == 0.0


def test_a_captured_run_that_costs_too_much_is_stopped_and_said_to_be_aborted(
    tracing: Tracing,
) -> None:
    tracing.tracing.apply(RUNS)
    tracing.start()
    tracing.leak(2)
    tracing.move(1.5)
    tracing.tracing._alarmed()
    tracing.end()
    assert tracing.windows() == [("PARTIAL", "a", 5, 1, 2)]


def test_asked_for_now_what_is_running_is_traced_from_here(tracing: Tracing) -> None:
    tracing.start("a", "1")
    tracing.leak(5)
    tracing.tracing.apply(TIMED, now=True)
    assert tracing.traces
    tracing.leak(3)
    tracing.end("a", "1")
    tracing.tracing.starting()
    assert tracing.windows() == [("PARTIAL", "a", 6, 0, 3)]


def test_asked_for_now_after_it_was_ordered_what_is_running_is_traced_too(
    tracing: Tracing,
) -> None:
    tracing.start("a", "1")
    tracing.tracing.apply(TIMED)
    tracing.tracing.apply(TIMED, now=True)
    assert tracing.traces
    tracing.tracing.apply(TIMED, now=True)
    tracing.end("a", "1")


def test_asked_for_now_while_nothing_runs_the_next_run_is_traced(tracing: Tracing) -> None:
    tracing.tracing.apply(TIMED, now=True)
    assert not tracing.traces
    assert tracing.run()


def test_among_other_tasks_a_capture_belongs_to_nobody_alone(tracing: Tracing) -> None:
    tracing.tracing.apply(RUNS)
    tracing.start("a", "1", alone=False)
    tracing.leak(2)
    tracing.end("a", "1", exclusive=False)
    tracing.tracing.starting()
    assert tracing.windows() == [("PARTIAL", "_shared", 5, 0, 2)]


def test_under_a_user_s_own_tracing_nothing_is_captured(tracing: Tracing) -> None:
    tracemalloc.start(2)
    tracing.tracing.apply(RUNS)
    assert not any(tracing.run() for _ in range(5))
    assert tracemalloc.get_traceback_limit() == 2
    tracemalloc.stop()


def test_a_child_that_takes_over_a_slot_goes_on_with_its_capture(tracing: Tracing) -> None:
    traced = []
    for _ in range(4):
        child = Tracing(tracing.page)
        child.tracing.budgeted = False
        child.tracing.apply(RUNS)
        traced.append(child.run())
        child.down()
        assert child.windows() == [("COMPLETE", "a", 5, 0, 1)] * traced[-1]
    assert traced == [True, True, True, False]


def test_a_run_that_its_process_did_not_outlive_is_left_to_the_next_one(tracing: Tracing) -> None:
    killed = Tracing(tracing.page)
    killed.tracing.apply(RUNS)
    assert killed.run() and killed.start()
    killed.tracer.stop()
    tracing.tracing.apply(RUNS)
    assert [tracing.run() for _ in range(3)] == [True, True, False]
    killed.down()
