"""Tasks that are known from the control page alone, as their process was killed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from otel_celery_memory.ipc.codec import encode
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import (
    NO_SPAN,
    Goodbye,
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
    """Records the tasks in flight that were found."""

    state: WorkerState = field(default_factory=WorkerState)
    found: list[TaskStarted] = field(default_factory=list)

    def task_in_flight(self, record: TaskStarted) -> None:
        self.found.append(record)


def put(page: ControlPage, frame: bytes) -> None:
    cells, at = page.in_flight_area(SLOT)
    cells[at : at + len(frame)] = frame


def starts_in(*frames: bytes, slot: int | None = SLOT) -> list[TaskStarted]:
    """What is seen of a process in this slot, after these were written there in turn."""
    page, listener = ControlPage(), InFlightListener()
    if slot is not None:
        listener.state.apply(ProcessUp(PID, 1, slot, 1_000))
    for frame in frames:
        put(page, frame)
    InFlightTasks(page, listener).read()
    page.close()
    return listener.found


START = started(PID, "id-1", time_ns=5, retained_bytes=70, previous_task="app.before")


def test_a_start_in_the_slot_is_read_completely() -> None:
    assert starts_in(encode(START)) == [START]


def test_an_empty_slot_and_one_whose_task_has_ended_have_no_start() -> None:
    assert starts_in() == []
    assert starts_in(encode(START), b"\0") == []


def test_a_shorter_frame_over_a_longer_one_is_read_alone() -> None:
    longer = started(PID, "id-" + "0" * 60, "app.a_long_name", time_ns=4)
    assert starts_in(encode(longer), encode(START)) == [START]


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
def test_a_frame_that_is_no_start_of_that_process_is_ignored(frame: bytes) -> None:
    assert starts_in(frame) == []


def test_slots_of_unknown_processes_are_not_read() -> None:
    assert starts_in(encode(START), slot=None) == []
    assert starts_in(encode(START), slot=SLOT + 1) == []


@pytest.fixture
def state() -> WorkerState:
    made = WorkerState()
    made.apply(ProcessUp(PID, 1, SLOT, 1_000))
    return made


def test_a_start_from_the_slot_is_in_flight_and_applied_once(state: WorkerState) -> None:
    assert state.apply_in_flight(START)
    assert not state.apply_in_flight(START)
    assert state.processes[PID].in_flight == [START]
    assert state.processes[PID].last == START


def test_a_task_that_ended_before_its_slot_was_read_is_not_in_flight(state: WorkerState) -> None:
    state.apply(finished(PID, "id-1")._replace(started_ns=START.time_ns))
    assert not state.apply_in_flight(START)
    assert state.processes[PID].in_flight == []


def test_a_later_run_replaces_the_one_before(state: WorkerState) -> None:
    later = START._replace(time_ns=9, task_id="id-2")
    assert state.apply_in_flight(START)
    assert state.apply_in_flight(later)
    assert state.processes[PID].in_flight == [later]


def test_an_end_takes_a_start_from_the_slot_out_of_flight(state: WorkerState) -> None:
    assert state.apply_in_flight(START)
    state.apply(finished(PID, "id-1")._replace(started_ns=START.time_ns))
    assert state.processes[PID].in_flight == []


def test_a_start_from_the_slot_counts_for_an_unknown_process_but_not_after_its_end() -> None:
    state = WorkerState()
    state.discard(PID + 1)
    assert state.apply_in_flight(START)
    assert state.processes[PID].in_flight == [START]
    assert not state.apply_in_flight(START._replace(pid=PID + 1))
    assert list(state.processes) == [PID]


def losses(reporter: Reporter) -> list[tuple[int | None, str, str | None]]:
    """Slot, reason and task; the signal is known only if the zombie was seen in time."""
    return [(slot, reason, task) for slot, reason, _, task in reporter.emitter.exits()]


def test_a_killed_process_is_lost_in_the_task_in_its_slot() -> None:
    main, child = Process(), Process()
    reporter = Reporter(main.pid)
    up = ProcessUp(child.pid, 1, SLOT, 1_000)
    reporter.send(up)
    reporter.wait_for(up)
    reporter.in_flight[SLOT] = encode(started(child.pid, "id-1", time_ns=5))
    child.kill()
    reporter.send(Goodbye(reporter.main_pid, 0))
    reporter.end()
    assert (SLOT, "killed", "app.task") in losses(reporter)
    reporter.close()
    main.kill()


def test_a_task_in_the_slot_is_found_although_only_the_exit_names_the_slot() -> None:
    main, child = Process(), Process()
    reporter = Reporter(main.pid)
    reporter.in_flight[SLOT] = encode(started(child.pid, "id-1", time_ns=5))
    child.kill()
    # A reporter that was started again met it by this record, which has no slot.
    reporter.send(HeapSampled(child.pid, 1, 2, 3, 4))
    reporter.send(ProcessExited(child.pid, 6, -9, SLOT, 0, 0, NO_SPAN, "", ""))
    reporter.send(Goodbye(reporter.main_pid, 0))
    reporter.end()
    assert (SLOT, "killed", 9, "app.task") in reporter.emitter.exits()
    reporter.close()
    main.kill()


def test_a_killed_process_that_was_idle_on_the_page_is_lost_in_no_task() -> None:
    main, child = Process(), Process()
    reporter = Reporter(main.pid)
    up = ProcessUp(child.pid, 1, SLOT, 1_000)
    # The end of its task met a full pipe, and the main process is away.
    reporter.send(up, started(child.pid, "id-1", time_ns=5))
    reporter.wait_for(up)
    reporter.places.idle_pids.add(child.pid)
    child.kill()
    reporter.send(Goodbye(reporter.main_pid, 0))
    reporter.end()
    assert (SLOT, "killed", None) in losses(reporter)
    reporter.close()
    main.kill()


def test_idle_before_the_next_start_does_not_count(
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
