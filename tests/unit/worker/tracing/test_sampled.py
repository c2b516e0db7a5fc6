"""Which runs of a process are traced within the budget, and what is told of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.probes import tracemalloc_session
from otel_celery_memory.worker.measuring.time_limits import TimeLimits
from otel_celery_memory.worker.tracing import traced_run
from tests.unit.worker.tracing.process_tracing import Tracing
from tests.unit.worker.tracing.tracing_bench import wait_for_tracing


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    # The next task ends a run, not the clock on the wall.
    monkeypatch.setattr(traced_run, "LINGER_S", 3_600.0)
    made = Tracing()
    yield made
    made.down()
    assert not tracemalloc.is_tracing()


def test_the_second_run_of_a_name_is_traced_whole_and_what_it_left_is_told(
    tracing: Tracing,
) -> None:
    assert not tracing.run(blocks=5)
    assert tracing.windows() == []
    assert tracing.run(blocks=7)
    tracing.start()
    assert tracing.windows() == [("COMPLETE", "a", 0, 0, 7)]


def test_each_name_has_its_turn(tracing: Tracing) -> None:
    for _ in range(3):
        for name in ("a", "b", "c"):
            tracing.run(name)
    tracing.tracing.starting()
    assert sorted(window[1] for window in tracing.windows()) == ["a", "b", "c"]


def test_after_a_trace_a_name_waits(tracing: Tracing) -> None:
    tracing.until_traced()
    assert tracing.until_traced() > 5


def test_what_tracing_cost_is_kept_where_a_successor_finds_it(tracing: Tracing) -> None:
    tracing.until_traced()
    balance = tracing.page.load(0)
    assert balance.task_s == pytest.approx(0.02)
    assert 0 < balance.spent_s < 0.02
    tracing.run()
    tracing.tracing.settle()
    assert tracing.page.load(0).task_s == pytest.approx(0.03)


def test_a_successor_goes_on_where_the_one_before_ended() -> None:
    page = ControlPage()
    page.save(0, Balance(100.0, 5.0, 100.0, 5.0, 999.0))
    successor = Tracing(page)
    assert not any(successor.run() for _ in range(300))
    successor.down()
    assert page.load(0).task_s == pytest.approx(103.0)


def test_a_run_that_could_reach_its_limit_is_not_traced(tracing: Tracing) -> None:
    tracing.limits = TimeLimits(0.4)
    assert not any(tracing.run() for _ in range(200))
    assert tracing.windows() == []


def test_a_user_s_tracing_is_left_alone_and_none_of_ours_begins(tracing: Tracing) -> None:
    tracemalloc.start(3)
    assert not any(tracing.run() for _ in range(100))
    assert tracemalloc.get_traceback_limit() == 3
    tracemalloc.stop()
    assert tracing.until_traced() == 1


def test_where_stopping_could_crash_the_process_nothing_is_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracemalloc_session, "_STOP_IS_MENDED", False)
    tracing = Tracing(foreign_threads=True)
    assert not any(tracing.run() for _ in range(100))
    tracing.down()


def test_a_run_that_somebody_joined_is_nobody_s_alone(tracing: Tracing) -> None:
    tracing.run()
    assert tracing.start("a", "1")
    tracing.start("b", "2", alone=False)
    tracing.leak(4)
    tracing.end("b", "2", exclusive=False)
    tracing.end("a", "1", exclusive=False)
    tracing.tracing.starting()
    assert tracing.windows() == [("PARTIAL", "_shared", 0, 0, 4)]


def test_where_tasks_always_overlap_slices_of_all_are_traced_under_one_name(
    tracing: Tracing,
) -> None:
    tracing.start("a", "1")
    tracing.start("b", "2", alone=False)
    tracing.move(0.01)
    tracing.end("a", "1", exclusive=False)
    tracing.start("a", "3", alone=False)
    wait_for_tracing()
    tracing.leak(3)
    tracing.move(0.01)
    tracing.end("b", "2", exclusive=False)
    tracing.end("a", "3", exclusive=False)
    assert tracing.windows() == [("PARTIAL", "_shared", 0, 0, 3)]
    assert tracing.page.load(0).spent_s > 0


def test_how_long_overlapping_runs_take_is_learned_and_limits_are_kept_from(
    tracing: Tracing,
) -> None:
    tracing.limits = TimeLimits(5.0)
    tracing.start("a", "1", alone=False)
    for number in range(2, 50):
        tracing.start("a", str(number), alone=False)
        assert not tracemalloc.is_tracing()
        tracing.move(0.01, wait_s=4.8)
        tracing.end("a", str(number - 1), exclusive=False)
    assert tracing.windows() == []


def test_a_slice_that_came_too_late_costs_little_and_the_run_is_learned_from(
    tracing: Tracing,
) -> None:
    tracing.run(cpu_s=50.0)
    for _ in range(50):
        tracing.run(cpu_s=0.001)
    assert tracing.until_traced() < 200


def test_a_run_whose_end_was_never_told_ends_with_the_next_start(tracing: Tracing) -> None:
    tracing.run()
    assert tracing.start("a", "lost")
    tracing.leak(2)
    tracing.start("b", "2")
    assert tracing.windows() == [("COMPLETE", "a", 0, 0, 2)]
    assert not tracemalloc.is_tracing()


def test_no_thread_for_the_guard_is_no_error_and_not_tried_at_every_run(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def none_left(_: object) -> None:
        tried.append(1)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(traced_run, "start_native_thread", none_left)
    assert not any(tracing.run(cpu_s=0.001) for _ in range(100))
    assert 1 <= len(tried) < 20


def test_without_a_budget_nothing_is_traced_but_captures(tracing: Tracing) -> None:
    tracing.tracing.budgeted = False
    assert not any(tracing.run() for _ in range(100))
    assert tracing.page.load(0) == Balance()
