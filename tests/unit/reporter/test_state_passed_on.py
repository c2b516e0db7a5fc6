"""A killed process's task, passed on by its successor: news once, and only while it matters."""

from __future__ import annotations

from otel_celery_memory.records import ProcessExited, ProcessUp
from otel_celery_memory.reporter.state import WorkerState
from tests.unit.examples import finished, started

CHILD = 11
PASSED_ON = started(CHILD, "a", time_ns=5)


def state_with_child() -> WorkerState:
    """A worker with one child."""
    state = WorkerState()
    state.apply(ProcessUp(CHILD, 1, 0, 1_000))
    return state


def test_a_task_that_nobody_has_told_of_is_news() -> None:
    assert state_with_child().is_news(PASSED_ON)


def test_it_is_the_task_that_a_killed_process_was_running() -> None:
    state = state_with_child()
    state.apply(PASSED_ON)
    state.apply(ProcessExited(CHILD, 8, -9, 0, ""))
    state.gone(CHILD, 9)
    (end,) = state.judge(9, all_now=True)
    assert end.task == PASSED_ON


def test_what_the_control_page_has_shown_is_no_news() -> None:
    state = state_with_child()
    assert state.held(PASSED_ON)
    assert not state.is_news(PASSED_ON)


def test_a_task_whose_end_is_told_is_no_news() -> None:
    state = state_with_child()
    state.apply(finished(CHILD, "a", time_ns=9)._replace(started_ns=5))
    assert not state.is_news(PASSED_ON)


def test_a_process_that_is_judged_does_not_come_back() -> None:
    state = state_with_child()
    state.gone(CHILD, 9)
    state.judge(9, all_now=True)
    assert not state.is_news(PASSED_ON)


def test_a_process_that_this_reporter_has_never_met_is_news() -> None:
    assert WorkerState().is_news(PASSED_ON)
