"""What a child holds in the control page of the task that it runs, whatever runs inside that."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.codec import encode, records_in
from otel_celery_memory.ipc.control_page import IDLE
from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    PartFailed,
    ProcessUp,
    TaskFinished,
    TaskInFlight,
    TaskInFlightAtExit,
    TaskStarted,
)
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.worker.measuring.in_flight import InFlightSlot, open_in_flight_slot
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.unit.examples import started
from tests.unit.fakes import FakeMemory
from tests.unit.forks import in_a_fork
from tests.unit.worker.recorder_bench import EAGER, PLAIN, SLOT, Child, begin_the_general_way

BEFORE = TaskStarted(4_000_000, 5, 6_000, -7, 0, "its-id", "app.its", "app.previous")


@pytest.fixture
def pipe() -> Iterator[RecordWriter]:
    made = RecordWriter(slot=SLOT)
    yield made
    made.close()


@pytest.fixture
def in_flight(pipe: RecordWriter) -> InFlightSlot:
    made = open_in_flight_slot(SLOT, pipe)
    assert made is not None
    return made


def in_a_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_the_outermost_of_runs_inside_one_another_is_held_until_its_end(
    child: Child, task: Any
) -> None:
    eager = SimpleNamespace(name="app.eager", request=SimpleNamespace(is_eager=True))
    child.recorder.prerun("outer", task)
    child.told()
    for _ in range(2):
        child.recorder.prerun("inner", eager)
        assert [record.task_id for record in child.held()] == ["outer"]
        child.recorder.postrun("inner", eager, "SUCCESS")
        assert [record.task_id for record in child.held()] == ["outer"]
    child.recorder.postrun("outer", task, "SUCCESS")
    ends = [record for record in child.told() if isinstance(record, TaskFinished)]
    assert [(end.task_id, end.nested) for end in ends] == [("inner", 1), ("inner", 1), ("outer", 0)]
    assert child.held() == []
    assert child.run(task) == PLAIN


@pytest.mark.parametrize("general", [False, True])
def test_a_task_that_runs_others_in_threads_stays_held_and_its_end_is_told(
    child: Child, task: Any, general: bool
) -> None:
    def inner() -> None:
        child.recorder.prerun("inner", EAGER)
        assert child.held_ids() == ["outer"]
        child.recorder.postrun("inner", EAGER, "SUCCESS")

    if general:
        begin_the_general_way(child, task, "outer")
    else:
        child.recorder.prerun("outer", task)
    for _ in range(2):
        in_a_thread(inner)
        assert child.held_ids() == ["outer"]
    child.recorder.postrun("outer", task, "SUCCESS")
    ends = [record for record in child.told() if isinstance(record, TaskFinished)]
    # What grew meanwhile is nobody's: threads share the process.
    assert [(end.task_id, end.nested, end.exclusive) for end in ends] == [
        ("inner", 1, 0),
        ("inner", 1, 0),
        ("outer", 0, 0),
    ]
    assert child.held() == []
    assert child.run(task) == PLAIN


def test_a_thread_that_ended_in_a_task_does_not_keep_those_after_it_from_being_plain(
    child: Child, task: Any
) -> None:
    child.recorder.prerun("outer", task)
    in_a_thread(lambda: child.recorder.prerun("inner", EAGER))
    child.recorder.postrun("outer", task, "SUCCESS")
    child.told()
    child.run(task)
    assert child.run(task) == PLAIN


def test_a_reporter_that_comes_while_a_task_runs_others_inside_knows_the_outermost(
    child: Child, task: Any
) -> None:
    child.recorder.prerun("outer", task)
    child.recorder.prerun("first", EAGER)
    child.told()  # read by a reporter that is killed
    child.recorder.postrun("first", EAGER, "SUCCESS")
    child.recorder.prerun("second", EAGER)
    for by_roll_call in (False, True):
        state = WorkerState()
        state.apply(ProcessUp(os.getpid(), 1, SLOT, 0))
        for record in child.told():
            state.apply(record)
        if by_roll_call:
            state.apply(TaskInFlight(os.getpid(), 5, "outer", "app.task"))
        else:
            state.apply_in_flight(*child.held())
        assert state.processes[os.getpid()].in_flight[0].task_id == "outer"
        child.recorder.postrun("second", EAGER, "SUCCESS")
        child.recorder.prerun("second", EAGER)


def test_nothing_stays_held_after_a_run_in_which_tracing_failed_and_the_next_is_plain(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> bool:
        raise RuntimeError

    child = Child(tracing="budget")
    child.run(task)
    monkeypatch.setattr(child.recorder.tracing, "started", failing)
    child.recorder.prerun("a", task)
    assert child.held_ids() == ["a"]
    child.recorder.postrun("a", task, "SUCCESS")
    assert PartFailed in map(type, child.told())
    assert child.held() == []
    assert child.run(task) == PLAIN
    child.close()


def test_what_the_process_before_held_when_it_died_is_told_by_its_successor(task: Any) -> None:
    child = Child()
    place, at = child.pipe.page.in_flight_area(child.pipe.slot)
    frame = encode(BEFORE)
    place[at : at + len(frame)] = frame
    child.recorder.begin(child.pipe.slot)
    told = [record for record in child.told() if isinstance(record, TaskInFlightAtExit)]
    assert told == [TaskInFlightAtExit(*BEFORE)]
    assert child.held() == []
    assert child.run(task) == PLAIN
    child.close()


def test_a_child_whose_peaks_cannot_be_read_the_short_way_holds_what_it_runs_too(
    task: Any,
) -> None:
    child = Child(probe=FakeMemory(1 << 20), tracing="off")
    child.recorder.prerun("a", task)
    assert child.held_ids() == ["a"]
    child.recorder.postrun("a", task, "SUCCESS")
    assert child.held() == []
    child.close()


def test_a_fork_that_comes_out_of_the_task_leaves_its_parent_s_place_alone(
    child: Child, task: Any
) -> None:
    child.recorder.prerun("a", task)
    in_a_fork(lambda: child.recorder.postrun("a", task, "FAILURE"))
    assert child.held_ids() == ["a"]
    assert child.told() == []
    child.recorder.postrun("a", task, "SUCCESS")
    assert [type(record) for record in child.told()] == PLAIN


def test_a_name_that_cannot_be_sent_cannot_be_held_and_switches_nothing_off(
    child: Child, task: Any
) -> None:
    nameless: Any = SimpleNamespace(name=7, request=SimpleNamespace(is_eager=False))
    for _ in range(9):
        begin_the_general_way(child, nameless, "a")
        assert child.held() == []
        child.recorder.postrun("a", nameless, "SUCCESS")
    assert child.told() == []
    assert child.run(task) == PLAIN


def test_of_a_name_too_long_for_the_page_the_beginning_is_held(
    pipe: RecordWriter, in_flight: InFlightSlot
) -> None:
    start = started(os.getpid(), "i" * 256)._replace(task="app." + "ñ" * 600)
    in_flight.send(start)
    (found,) = records_in(pipe.page.in_flight(SLOT))
    assert isinstance(found, TaskStarted)
    assert start.task.startswith(found.task)
    assert len(found.task) > 60
    assert found._replace(task="") == start._replace(task="")


def test_another_task_s_end_leaves_what_is_held(
    pipe: RecordWriter, in_flight: InFlightSlot
) -> None:
    in_flight.send(started(os.getpid(), "a-task"))
    for other in ("another", "a-t", "app", ""):
        assert not in_flight.forget(other)
        in_flight.ended(other, idle=False)
    assert pipe.page.in_flight(SLOT) != b""
    assert in_flight.forget("a-task")
    assert pipe.page.in_flight(SLOT) == b""
    # What runs now nobody knows.
    assert not pipe.page.idle(SLOT, os.getpid())


def test_a_start_is_held_before_it_is_sent(
    pipe: RecordWriter, in_flight: InFlightSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []
    monkeypatch.setattr(pipe, "send", lambda _: found.append(bool(pipe.page.in_flight(SLOT))))
    in_flight.send(started(os.getpid(), "a"))
    assert found == [True]


@pytest.mark.parametrize("slot", [MAIN_SLOT, 510])
def test_who_has_no_place_of_its_own_holds_nothing(pipe: RecordWriter, slot: int) -> None:
    assert open_in_flight_slot(slot, pipe) is None
    page, at = pipe.page.in_flight_area(slot)
    pipe.page.claim(slot, 11)
    assert page[at] == IDLE
    assert not pipe.page.idle(slot, 11)


def test_a_time_limit_is_the_task_s_where_it_strikes_as_a_start_is_held(
    in_flight: InFlightSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(_: object) -> bytes:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr("otel_celery_memory.worker.measuring.in_flight.encode", strike)
    with pytest.raises(SoftTimeLimitExceeded):
        in_flight.send(started(os.getpid(), "a"))
