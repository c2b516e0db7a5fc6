"""The exit codes of the pool's children, from the main process, which reaps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from otel_celery_memory.ipc.records import ProcessExited
from otel_celery_memory.worker.lifecycle.child_exits import ChildExitObserver
from tests.unit.fakes import ListSink, exits_to


@dataclass
class Child:
    """A child, as billiard's pool has it."""

    pid: int | None
    exitcode: int | None
    index: int = 0


@dataclass
class CeleryPool:
    """Celery's pool around billiard's."""

    _pool: Any


class BilliardPool:
    """What billiard's pool has that we use."""

    def __init__(self, *children: Child) -> None:
        self._pool = list(children)
        self.called: list[Child] = []
        self.before = self.called.append
        self.on_process_down: Callable[[Any], None] = self.before


def codes(sink: ListSink) -> list[tuple[int, int]]:
    """(pid, exit code) of the exits that were sent."""
    return [(r.pid, r.exit_code) for r in sink.records if isinstance(r, ProcessExited)]


def test_a_reaped_child_s_exit_code_is_sent_and_the_pool_is_called_as_before() -> None:
    sink, pool = ListSink(), BilliardPool()
    ChildExitObserver(exits_to(sink)).follow(CeleryPool(pool))
    killed, recycled = Child(11, -9), Child(12, 155)
    pool.on_process_down(killed)
    pool.on_process_down(recycled)
    assert codes(sink) == [(11, -9), (12, 155)]
    assert pool.called == [killed, recycled]


def test_following_the_same_pool_again_sends_each_exit_once() -> None:
    sink, pool = ListSink(), BilliardPool()
    observer = ChildExitObserver(exits_to(sink))
    for _ in range(3):
        observer.follow(CeleryPool(pool))
    pool.on_process_down(Child(11, -9))
    assert (codes(sink), len(pool.called)) == ([(11, -9)], 1)


def test_a_callback_that_replaced_ours_is_hooked_again_and_still_called() -> None:
    sink, pool = ListSink(), BilliardPool()
    other: list[Any] = []
    observer = ChildExitObserver(exits_to(sink))
    observer.follow(CeleryPool(pool))
    pool.on_process_down = other.append
    observer.follow(CeleryPool(pool))
    pool.on_process_down(Child(11, -9))
    assert (codes(sink), len(other)) == ([(11, -9)], 1)


def test_release_restores_the_callback_unless_it_was_replaced() -> None:
    pool = BilliardPool()
    observer = ChildExitObserver(exits_to(ListSink()))
    observer.follow(CeleryPool(pool))
    observer.release()
    assert pool.on_process_down == pool.before
    observer.follow(CeleryPool(pool))
    pool.on_process_down = print
    observer.release()
    assert pool.on_process_down == print


def test_after_release_a_kept_hook_only_calls_the_one_before_it() -> None:
    sink, pool = ListSink(), BilliardPool()
    observer = ChildExitObserver(exits_to(sink))
    observer.follow(CeleryPool(pool))
    ours = pool.on_process_down
    pool.on_process_down = lambda process: ours(process)
    observer.release()
    pool.on_process_down(Child(11, -9))
    assert (codes(sink), len(pool.called)) == ([], 1)


def test_a_child_without_exit_code_sends_nothing_and_a_strange_object_does_no_harm() -> None:
    sink, pool = ListSink(), BilliardPool()
    ChildExitObserver(exits_to(sink)).follow(CeleryPool(pool))
    pool.on_process_down(Child(11, None))
    strange: Any = object()
    pool.on_process_down(strange)
    assert (codes(sink), pool.called[1]) == ([], strange)


def test_pools_of_threads_and_greenlets_have_no_children() -> None:
    observer = ChildExitObserver(exits_to(ListSink()))
    for pool in (CeleryPool(None), CeleryPool(object()), object(), None):
        observer.follow(pool)
    assert observer.children() == []
    observer.release()


def test_children_returns_pid_and_slot_of_each_child() -> None:
    observer = ChildExitObserver(exits_to(ListSink()))
    observer.follow(CeleryPool(BilliardPool(Child(11, None, 0), Child(12, None, 3))))
    assert observer.children() == [(11, 0), (12, 3)]


def test_a_child_that_the_pool_lists_and_has_not_started_yet_is_none() -> None:
    observer = ChildExitObserver(exits_to(ListSink()))
    observer.follow(CeleryPool(BilliardPool(Child(11, None, 0), Child(None, None, 1))))
    assert observer.children() == [(11, 0)]


def test_a_hook_around_ours_is_called_once_for_each_child() -> None:
    sink, pool = ListSink(), BilliardPool()
    wrapped: list[Any] = []
    observer = ChildExitObserver(exits_to(sink))
    observer.follow(CeleryPool(pool))
    ours = pool.on_process_down

    def wrapper(process: Any) -> None:
        wrapped.append(process)
        ours(process)

    pool.on_process_down = wrapper
    observer.follow(CeleryPool(pool))
    pool.on_process_down(Child(11, -9))
    assert (codes(sink), len(wrapped), len(pool.called)) == ([(11, -9)], 1, 1)


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ({}, ""),
        ({"_controlled_termination": False, "_job_terminated": False}, ""),
        ({"_controlled_termination": True}, "autoscale"),
        ({"_controlled_termination": True, "_job_terminated": True}, "terminated"),
    ],
)
def test_the_reason_of_the_main_process_is_sent_with_the_exit_code(
    marks: dict[str, bool], reason: str
) -> None:
    sink, pool, child = ListSink(), BilliardPool(), Child(11, -9)
    vars(child).update(marks)
    ChildExitObserver(exits_to(sink)).follow(CeleryPool(pool))
    pool.on_process_down(child)
    (record,) = sink.records
    assert isinstance(record, ProcessExited)
    assert (record.pid, record.exit_code, record.slot, record.reason) == (11, -9, 0, reason)
