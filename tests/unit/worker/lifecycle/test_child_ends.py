"""What is told of a child that was reaped, and of whom it is told again."""

from __future__ import annotations

import pytest

from otel_celery_memory.ipc.codec import encode
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import NO_SPAN, ProcessExited, Record, TaskInFlightAtExit
from otel_celery_memory.worker.lifecycle.child_exits import KEPT_MAX, ChildExits
from tests.unit.examples import started
from tests.unit.fakes import FakeInFlightTable, ListSink

SLOT = 2


def reaped(pid: int, exit_code: int = -9, slot: int = SLOT) -> ProcessExited:
    return ProcessExited(pid, pid, exit_code, slot, 0, NO_SPAN, "", "")


def held(pid: int) -> TaskInFlightAtExit:
    return TaskInFlightAtExit(*started(pid, f"of {pid}"))


class FullPipe(ListSink):
    """Takes so many records more."""

    room = 0

    def send(self, record: Record) -> bool:
        self.room -= 1
        return self.room >= 0 and super().send(record)


def test_the_task_that_a_child_held_is_told_before_its_end_and_held_no_more() -> None:
    sink, places = ListSink(), FakeInFlightTable({SLOT: encode(started(11, "of 11"))})
    ChildExits(sink, places).record(reaped(11))
    assert sink.records == [held(11), reaped(11)]
    assert places.by_slot == {}


@pytest.mark.parametrize("frame", [b"", b"garbage", encode(started(99, "of 99"))])
def test_what_is_no_task_of_that_child_is_left_where_it_is(frame: bytes) -> None:
    sink, places = ListSink(), FakeInFlightTable({SLOT: frame})
    ChildExits(sink, places).record(reaped(11))
    assert (sink.records, places.by_slot) == ([reaped(11)], {SLOT: frame})


def test_of_a_child_that_was_idle_that_is_told() -> None:
    sink, places = ListSink(), FakeInFlightTable()
    places.idle_pids.add(11)
    ends = ChildExits(sink, places)
    for pid in (11, 12):
        ends.record(reaped(pid))
    assert sink.records == [reaped(11)._replace(idle=1), reaped(12)]


def test_in_the_page_what_was_told_is_held_no_more_and_says_nothing_of_the_next_child() -> None:
    sink, page = ListSink(), ControlPage()
    ends = ChildExits(sink, page)
    page.claim(SLOT, 11)
    cells, at = page.in_flight_area(SLOT)
    frame = encode(started(11, "of 11"))
    cells[at : at + len(frame)] = frame
    for pid in (11, 12):
        ends.record(reaped(pid))
    assert sink.records == [held(11), reaped(11), reaped(12)]
    assert (page.in_flight(SLOT), page.idle(SLOT, 11)) == (b"", False)
    page.claim(SLOT, 13)
    ends.record(reaped(12))
    ends.record(reaped(13))
    assert sink.records[3:] == [reaped(12), reaped(13)._replace(idle=1)]
    page.close()


def test_the_tasks_of_all_who_died_in_one_slot_are_kept() -> None:
    places = FakeInFlightTable()
    ends = ChildExits(ListSink(), places)
    pids = range(100, 200)
    for pid in pids:
        places.by_slot[SLOT] = encode(started(pid, f"of {pid}"))
        ends.record(reaped(pid))
    assert [end.in_flight for end in ends.since(0)] == [held(pid) for pid in pids]
    assert [end.exited.pid for end in ends.since(198)] == [198, 199]


def test_a_death_is_kept_however_many_children_are_recycled_after_it() -> None:
    ends = ChildExits(ListSink(), FakeInFlightTable())
    ends.record(reaped(1))
    for pid in range(2, 2 * KEPT_MAX):
        ends.record(reaped(pid, 155))
    kept = [end.exited.pid for end in ends.since(0)]
    assert kept == [1, *range(KEPT_MAX, 2 * KEPT_MAX)]


def test_what_a_full_pipe_did_not_take_is_told_when_it_has_room() -> None:
    sink, places = FullPipe(), FakeInFlightTable()
    ends = ChildExits(sink, places)
    for pid in (11, 12):
        places.by_slot[SLOT] = encode(started(pid, f"of {pid}"))
        ends.record(reaped(pid))
    assert sink.records == []
    assert places.by_slot != {}
    sink.room = 3
    ends.retry_unsent()
    assert sink.records == [held(11), reaped(11), held(12)]
    sink.room = 9
    for _ in range(2):
        ends.retry_unsent()
    # Once more whole: whoever hears of it twice knows it.
    assert sink.records[3:] == [held(12), reaped(12)]
