"""The roll call: who is there, and what they run, for a reporter that was started again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from otel_celery_memory.records import MAIN_SLOT, ProcessExited, ProcessUp, TaskHeld, TaskInFlight
from otel_celery_memory.wire import encode
from otel_celery_memory.worker.reaper import Reaper
from otel_celery_memory.worker.rollcall import call_roll, tell_again, tell_tasks
from tests.unit.examples import started
from tests.unit.fakes import ListSink, nothing_held


@dataclass(frozen=True)
class Request:
    """A request as Celery's main process keeps it."""

    id: str
    worker_pid: int | None
    time_start: float | None
    name: str = "shown to people"
    type: str = "app.task"


def test_the_main_process_and_each_child_are_told_without_a_size() -> None:
    sink = ListSink()
    call_roll(sink, 10, [(11, 0), (12, 1)])
    told = [record for record in sink.records if isinstance(record, ProcessUp)]
    assert [(r.pid, r.slot, r.rss_bytes) for r in told] == [
        (10, MAIN_SLOT, 0),
        (11, 0, 0),
        (12, 1, 0),
    ]
    assert len(sink.records) == 3


def test_tasks_that_have_begun_in_a_process_of_ours_are_told() -> None:
    sink = ListSink()
    requests = [
        Request("a", 11, 1.5),
        Request("not begun", None, None),
        Request("accepted by nobody", 12, None),
        Request("elsewhere", 99, 1.0),
        Request("b", 10, 2.0),
    ]
    tell_tasks(sink, [10, 11, 12], requests)
    assert sink.records == [
        TaskInFlight(11, 1_500_000_000, "a", "app.task"),
        TaskInFlight(10, 2_000_000_000, "b", "app.task"),
    ]


def test_where_nothing_runs_nothing_is_told() -> None:
    sink = ListSink()
    tell_tasks(sink, [10])
    assert sink.records == []


@dataclass
class Child:
    """A child as billiard shows it."""

    pid: int
    exitcode: int | None
    index: int


class Pool:
    """What the reaper asks of Celery's and billiard's pools."""

    def __init__(self) -> None:
        self._pool = self
        self.on_process_down: Callable[[Child], None] = lambda child: None


def test_a_reporter_that_was_started_again_is_told_who_has_just_ended() -> None:
    heard_before, sink, pool = ListSink(), ListSink(), Pool()
    reaper = Reaper(heard_before, nothing_held)
    reaper.follow(pool)
    pool.on_process_down(Child(13, -9, 2))
    tell_again(sink, 10, [(11, 0)], reaper, told=[])
    assert [type(record).__name__ for record in sink.records] == [
        "ProcessUp",
        "ProcessUp",
        "ProcessExited",
    ]
    assert sink.records[-1:] == heard_before.records
    assert reaper.ends_since(time.time_ns() + 1) == []


def test_the_tasks_of_all_who_died_in_one_slot_are_told_again() -> None:
    place, sink, pool = [b""], ListSink(), Pool()
    reaper = Reaper(ListSink(), lambda slot: place[0])
    reaper.follow(pool)
    pids = range(100, 200)
    for pid in pids:
        place[0] = encode(started(pid, f"of {pid}"))
        pool.on_process_down(Child(pid, -9, 2))
    tell_again(sink, 10, [], reaper, told=[])
    held = [record for record in sink.records if isinstance(record, TaskHeld)]
    assert held == [TaskHeld(*started(pid, f"of {pid}")) for pid in pids]


def test_what_a_reporter_that_died_has_told_is_not_told_again() -> None:
    sink, pool = ListSink(), Pool()
    reaper = Reaper(ListSink(), nothing_held)
    reaper.follow(pool)
    for pid in (13, 14):
        pool.on_process_down(Child(pid, -9, 2))
    tell_again(sink, 10, [], reaper, told=frozenset((13,)))
    ended = [record.pid for record in sink.records if isinstance(record, ProcessExited)]
    assert ended == [14]
