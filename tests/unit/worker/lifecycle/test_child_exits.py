"""The exit codes of the pool's children, heard from the one who reaps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from otel_celery_memory.ipc.records import ProcessExited
from otel_celery_memory.worker.lifecycle.child_exits import ChildExitObserver
from tests.unit.fakes import ListSink, ends_to


@dataclass
class Child:
    """A child as billiard shows it."""

    pid: int
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
        self.told: list[Child] = []
        self.before = self.told.append
        self.on_process_down: Callable[[Any], None] = self.before


def codes(sink: ListSink) -> list[tuple[int, int]]:
    """(pid, exit code) of what was told."""
    return [(r.pid, r.exit_code) for r in sink.records if isinstance(r, ProcessExited)]


def test_a_reaped_child_s_exit_code_is_told_and_the_pool_hears_of_it_as_before() -> None:
    sink, pool = ListSink(), BilliardPool()
    ChildExitObserver(ends_to(sink)).follow(CeleryPool(pool))
    killed, recycled = Child(11, -9), Child(12, 155)
    pool.on_process_down(killed)
    pool.on_process_down(recycled)
    assert codes(sink) == [(11, -9), (12, 155)]
    assert pool.told == [killed, recycled]


def test_following_the_same_pool_again_tells_once() -> None:
    sink, pool = ListSink(), BilliardPool()
    reaper = ChildExitObserver(ends_to(sink))
    for _ in range(3):
        reaper.follow(CeleryPool(pool))
    pool.on_process_down(Child(11, -9))
    assert (codes(sink), len(pool.told)) == ([(11, -9)], 1)


def test_who_took_our_place_is_followed_again_and_hears_of_it() -> None:
    sink, pool = ListSink(), BilliardPool()
    other: list[Any] = []
    reaper = ChildExitObserver(ends_to(sink))
    reaper.follow(CeleryPool(pool))
    pool.on_process_down = other.append
    reaper.follow(CeleryPool(pool))
    pool.on_process_down(Child(11, -9))
    assert (codes(sink), len(other)) == ([(11, -9)], 1)


def test_releasing_puts_back_what_was_there_unless_somebody_else_came() -> None:
    pool = BilliardPool()
    reaper = ChildExitObserver(ends_to(ListSink()))
    reaper.follow(CeleryPool(pool))
    reaper.release()
    assert pool.on_process_down == pool.before
    reaper.follow(CeleryPool(pool))
    pool.on_process_down = print
    reaper.release()
    assert pool.on_process_down == print


def test_after_the_release_who_stands_before_us_is_passed_on_and_nothing_is_told() -> None:
    sink, pool = ListSink(), BilliardPool()
    reaper = ChildExitObserver(ends_to(sink))
    reaper.follow(CeleryPool(pool))
    ours = pool.on_process_down
    pool.on_process_down = lambda process: ours(process)
    reaper.release()
    pool.on_process_down(Child(11, -9))
    assert (codes(sink), len(pool.told)) == ([], 1)


def test_a_child_without_exit_code_is_not_told_and_one_that_is_none_hurts_nobody() -> None:
    sink, pool = ListSink(), BilliardPool()
    ChildExitObserver(ends_to(sink)).follow(CeleryPool(pool))
    pool.on_process_down(Child(11, None))
    strange: Any = object()
    pool.on_process_down(strange)
    assert (codes(sink), pool.told[1]) == ([], strange)


def test_pools_of_threads_and_greenlets_have_no_children() -> None:
    reaper = ChildExitObserver(ends_to(ListSink()))
    for pool in (CeleryPool(None), CeleryPool(object()), object(), None):
        reaper.follow(pool)
    assert reaper.children() == []
    reaper.release()


def test_the_children_now_are_told_with_their_places() -> None:
    reaper = ChildExitObserver(ends_to(ListSink()))
    reaper.follow(CeleryPool(BilliardPool(Child(11, None, 0), Child(12, None, 3))))
    assert reaper.children() == [(11, 0), (12, 3)]


def test_somebody_who_stands_before_us_and_passes_on_hears_of_each_child_once() -> None:
    sink, pool = ListSink(), BilliardPool()
    heard: list[Any] = []
    reaper = ChildExitObserver(ends_to(sink))
    reaper.follow(CeleryPool(pool))
    ours = pool.on_process_down

    def wrapper(process: Any) -> None:
        heard.append(process)
        ours(process)

    pool.on_process_down = wrapper
    reaper.follow(CeleryPool(pool))
    pool.on_process_down(Child(11, -9))
    assert (codes(sink), len(heard), len(pool.told)) == ([(11, -9)], 1, 1)


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ({}, ""),
        ({"_controlled_termination": False, "_job_terminated": False}, ""),
        ({"_controlled_termination": True}, "autoscale"),
        ({"_controlled_termination": True, "_job_terminated": True}, "terminated"),
    ],
)
def test_what_the_main_process_wanted_is_told_with_the_exit_code(
    marks: dict[str, bool], reason: str
) -> None:
    sink, pool, child = ListSink(), BilliardPool(), Child(11, -9)
    vars(child).update(marks)
    ChildExitObserver(ends_to(sink)).follow(CeleryPool(pool))
    pool.on_process_down(child)
    (record,) = sink.records
    assert isinstance(record, ProcessExited)
    assert (record.pid, record.exit_code, record.slot, record.reason) == (11, -9, 0, reason)
