"""Tasks that are known from the control page alone: what a dying process would have told."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from otel_celery_memory.ipc.codec import encode
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import (
    NO_SPAN,
    HeapSampled,
    ProcessExited,
    ProcessUp,
    TaskInFlight,
    TaskStarted,
)
from otel_celery_memory.reporter.state.worker_state import InFlightTasks, WorkerState
from tests.unit.examples import finished, started
from tests.unit.reporter.bench import Process, Reporter

PID, SLOT = 11, 4


@dataclass
class InFlightListener:
    """Notes what is held."""

    state: WorkerState = field(default_factory=WorkerState)
    held: list[TaskStarted] = field(default_factory=list)

    def task_in_flight(self, record: TaskStarted) -> None:
        self.held.append(record)


def put(page: ControlPage, frame: bytes) -> None:
    cells, at = page.in_flight_area(SLOT)
    cells[at : at + len(frame)] = frame


def look(*frames: bytes, slot: int | None = SLOT) -> list[TaskStarted]:
    """What is seen of a process in this slot, after these were written there in turn."""
    page, listener = ControlPage(), InFlightListener()
    if slot is not None:
        listener.state.apply(ProcessUp(PID, 1, slot, 1_000))
    for frame in frames:
        put(page, frame)
    InFlightTasks(page, listener).read()
    page.close()
    return listener.held


START = started(PID, "id-1", time_ns=5, retained_bytes=70, previous_task="app.before")


def test_a_held_start_is_seen_whole() -> None:
    assert look(encode(START)) == [START]


def test_an_empty_place_and_one_whose_task_has_ended_hold_nothing() -> None:
    assert look() == []
    assert look(encode(START), b"\0") == []


def test_a_shorter_frame_over_a_longer_one_is_seen_and_its_rest_is_not() -> None:
    longer = started(PID, "id-" + "0" * 60, "app.a_long_name", time_ns=4)
    assert look(encode(longer), encode(START)) == [START]


@pytest.mark.parametrize(
    "frame",
    [
        bytes(range(256)) * 2,
        encode(START)[:-3] + b"???",
        encode(START)[:20],
        encode(finished(PID)),
        encode(started(PID + 1, "another's")),
    ],
    ids=["garbage", "damaged", "half", "of another kind", "of another process"],
)
def test_what_is_no_start_of_that_process_is_not_believed(frame: bytes) -> None:
    assert look(frame) == []


def test_processes_that_are_not_known_are_not_looked_at() -> None:
    assert look(encode(START), slot=None) == []
    assert look(encode(START), slot=SLOT + 1) == []


@pytest.fixture
def state() -> WorkerState:
    made = WorkerState()
    made.apply(ProcessUp(PID, 1, SLOT, 1_000))
    return made


def test_what_is_held_is_in_flight_and_known_once(state: WorkerState) -> None:
    assert state.apply_in_flight(START)
    assert not state.apply_in_flight(START)
    assert state.processes[PID].in_flight == [START]
    assert state.processes[PID].last == START


def test_what_ended_before_it_was_looked_at_is_not_in_flight(state: WorkerState) -> None:
    state.apply(finished(PID, "id-1")._replace(started_ns=START.time_ns))
    assert not state.apply_in_flight(START)
    assert state.processes[PID].in_flight == []


def test_a_later_run_takes_the_place_of_the_one_before(state: WorkerState) -> None:
    later = START._replace(time_ns=9, task_id="id-2")
    assert state.apply_in_flight(START)
    assert state.apply_in_flight(later)
    assert state.processes[PID].in_flight == [later]


def test_the_end_of_what_was_held_takes_it_out_of_flight(state: WorkerState) -> None:
    assert state.apply_in_flight(START)
    state.apply(finished(PID, "id-1")._replace(started_ns=START.time_ns))
    assert state.processes[PID].in_flight == []


def test_of_a_process_that_nobody_has_met_it_is_believed_but_not_of_one_whose_end_was_told() -> (
    None
):
    state = WorkerState()
    state.discard(PID + 1)
    assert state.apply_in_flight(START)
    assert state.processes[PID].in_flight == [START]
    assert not state.apply_in_flight(START._replace(pid=PID + 1))
    assert list(state.processes) == [PID]


def test_a_killed_process_is_lost_in_the_task_that_it_held() -> None:
    main, child = Process(), Process()
    reporter = Reporter(main.pid)
    up = ProcessUp(child.pid, 1, SLOT, 1_000)
    reporter.send(up)
    reporter.wait_for(up)
    reporter.in_flight[SLOT] = encode(started(child.pid, "id-1", time_ns=5))
    child.kill()
    reporter.close_pipe()
    reporter.end()
    assert (SLOT, "killed", None, "app.task") in reporter.emitter.exits()
    reporter.close()
    main.kill()


def test_where_its_slot_is_told_with_its_end_alone_what_it_held_is_found_all_the_same() -> None:
    main, child = Process(), Process()
    reporter = Reporter(main.pid)
    reporter.in_flight[SLOT] = encode(started(child.pid, "id-1", time_ns=5))
    child.kill()
    # A reporter that was started again met it by this record, which has no slot.
    reporter.send(HeapSampled(child.pid, 1, 2, 3, 4))
    reporter.send(ProcessExited(child.pid, 6, -9, SLOT, 0, NO_SPAN, "", ""))
    reporter.close_pipe()
    reporter.end()
    assert (SLOT, "killed", 9, "app.task") in reporter.emitter.exits()
    reporter.close()
    main.kill()


def test_a_killed_process_that_had_said_that_it_ran_nothing_is_lost_in_no_task() -> None:
    main, child = Process(), Process()
    reporter = Reporter(main.pid)
    up = ProcessUp(child.pid, 1, SLOT, 1_000)
    # The end of its task met a full pipe, and the main process is away.
    reporter.send(up, started(child.pid, "id-1", time_ns=5))
    reporter.wait_for(up)
    reporter.places.idle_pids.add(child.pid)
    child.kill()
    reporter.close_pipe()
    reporter.end()
    assert (SLOT, "killed", None, None) in reporter.emitter.exits()
    reporter.close()
    main.kill()


def test_what_a_process_said_before_its_next_task_began_is_of_no_account(
    state: WorkerState,
) -> None:
    process = state.processes[PID]
    for begin in (
        lambda: state.apply(START),
        lambda: state.apply_in_flight(START._replace(time_ns=7, task_id="id-2")),
        lambda: state.apply(TaskInFlight(PID, 9, "id-3", "app.task")),
    ):
        process.in_flight.clear()
        process.idle = True
        assert process.running is None
        begin()
        assert process.running is not None
