"""The records of a child that was reaped: sent, kept and sent again."""

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
    return ProcessExited(pid, pid, exit_code, slot, 0, 0, NO_SPAN, "", "")


def in_flight(pid: int) -> TaskInFlightAtExit:
    return TaskInFlightAtExit(*started(pid, f"of {pid}"))


class FullPipe(ListSink):
    """Accepts so many more records."""

    room = 0

    def send(self, record: Record) -> bool:
        self.room -= 1
        return self.room >= 0 and super().send(record)


def test_a_child_s_task_in_flight_is_sent_before_its_exit_and_removed_from_the_page() -> None:
    sink, table = ListSink(), FakeInFlightTable({SLOT: encode(started(11, "of 11"))})
    ChildExits(sink, table).record(reaped(11))
    assert sink.records == [in_flight(11), reaped(11)]
    assert table.by_slot == {}


@pytest.mark.parametrize("frame", [b"", b"garbage", encode(started(99, "of 99"))])
def test_a_frame_of_another_process_stays_on_the_page(frame: bytes) -> None:
    sink, table = ListSink(), FakeInFlightTable({SLOT: frame})
    ChildExits(sink, table).record(reaped(11))
    assert (sink.records, table.by_slot) == ([reaped(11)], {SLOT: frame})


def test_the_exit_of_an_idle_child_is_sent_as_idle() -> None:
    sink, table = ListSink(), FakeInFlightTable()
    table.idle_pids.add(11)
    ends = ChildExits(sink, table)
    for pid in (11, 12):
        ends.record(reaped(pid))
    assert sink.records == [reaped(11)._replace(idle=1), reaped(12)]


def test_a_task_that_was_sent_is_not_sent_again_with_the_next_child() -> None:
    sink, page = ListSink(), ControlPage()
    ends = ChildExits(sink, page)
    page.claim(SLOT, 11)
    cells, at = page.in_flight_area(SLOT)
    frame = encode(started(11, "of 11"))
    cells[at : at + len(frame)] = frame
    for pid in (11, 12):
        ends.record(reaped(pid))
    assert sink.records == [in_flight(11), reaped(11), reaped(12)]
    assert (page.in_flight(SLOT), page.idle(SLOT, 11)) == (b"", False)
    page.claim(SLOT, 13)
    ends.record(reaped(12))
    ends.record(reaped(13))
    assert sink.records[3:] == [reaped(12), reaped(13)._replace(idle=1)]
    page.close()


def test_the_tasks_of_all_children_that_died_in_one_slot_are_kept() -> None:
    table = FakeInFlightTable()
    ends = ChildExits(ListSink(), table)
    pids = range(100, 200)
    for pid in pids:
        table.by_slot[SLOT] = encode(started(pid, f"of {pid}"))
        ends.record(reaped(pid))
    assert [end.in_flight for end in ends.since(0)] == [in_flight(pid) for pid in pids]
    assert [end.exited.pid for end in ends.since(198)] == [198, 199]


def test_a_lost_child_is_kept_however_many_children_are_recycled_after_it() -> None:
    ends = ChildExits(ListSink(), FakeInFlightTable())
    ends.record(reaped(1))
    for pid in range(2, 2 * KEPT_MAX):
        ends.record(reaped(pid, 155))
    kept = [end.exited.pid for end in ends.since(0)]
    assert kept == [1, *range(KEPT_MAX, 2 * KEPT_MAX)]


def test_an_exit_that_a_full_pipe_did_not_accept_is_sent_when_it_has_room() -> None:
    sink, table = FullPipe(), FakeInFlightTable()
    ends = ChildExits(sink, table)
    for pid in (11, 12):
        table.by_slot[SLOT] = encode(started(pid, f"of {pid}"))
        ends.record(reaped(pid))
    assert sink.records == []
    assert table.by_slot != {}
    sink.room = 3
    ends.retry_unsent()
    assert sink.records == [in_flight(11), reaped(11), in_flight(12)]
    sink.room = 9
    for _ in range(2):
        ends.retry_unsent()
    # Both are sent again: the reporter ignores a task that it knows.
    assert sink.records[3:] == [in_flight(12), reaped(12)]
