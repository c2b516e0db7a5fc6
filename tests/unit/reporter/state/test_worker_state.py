"""How the state of a worker follows from its records, and how each of its processes ended."""

from __future__ import annotations

import signal
from itertools import permutations
from typing import Any

import pytest

from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    NO_SPAN,
    ExitReason,
    Goodbye,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    Record,
    TaskInFlight,
    TaskOverdue,
)
from otel_celery_memory.reporter.state.exits import ProcessEnd
from otel_celery_memory.reporter.state.processes import CLASSIFY_AFTER_NS, GIVE_UP_AFTER_NS
from otel_celery_memory.reporter.state.worker_state import WorkerState
from tests.unit.examples import finished, started

MAIN, CHILD = 10, 11
GONE_NS = 5_000


def down(reason: str, *, exit_code: int = 0, pid: int = CHILD, slot: int = 0) -> ProcessDown:
    """A process says goodbye."""
    return ProcessDown(pid, 0, slot, exit_code, 2_000, None, reason, "")


def up(pid: int = CHILD, slot: int = 0) -> ProcessUp:
    return ProcessUp(pid, 0, slot, 1_000)


def exited(exit_code: int, reason: str = "", pid: int = CHILD) -> ProcessExited:
    return ProcessExited(pid, 0, exit_code, 0, 0, 0, NO_SPAN, reason, "")


def state_of(*records: Record) -> WorkerState:
    """The state after these records."""
    state = WorkerState()
    for record in records:
        state.apply(record)
    return state


def classify_end(state: WorkerState, pid: int = CHILD) -> ProcessEnd:
    """How a process ended that is gone now."""
    state.gone(pid, GONE_NS)
    (end,) = state.classify_ended(GONE_NS, all_now=True)
    assert (end.process.pid, end.time_ns) == (pid, GONE_NS)
    return end


def ending(*records: Record, pid: int = CHILD) -> tuple[Any, ...]:
    """Reason, signal, the lost task's id, and whether it is a loss, of the end after records."""
    end = classify_end(state_of(*records), pid)
    return end.reason.value, end.signal, end.task.task_id if end.task else None, end.lost


IN_TASK = (up(), started(CHILD, "id-1"))
AFTER_TASK = (*IN_TASK, finished(CHILD, "id-1"))


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ((*AFTER_TASK, down("max_tasks", exit_code=155)), ("max_tasks", None, None, False)),
        ((*AFTER_TASK, down("max_memory", exit_code=155)), ("max_memory", None, None, False)),
        ((*AFTER_TASK, down("shutdown")), ("shutdown", None, None, False)),
        ((*AFTER_TASK, down("shutdown"), exited(0)), ("shutdown", None, None, False)),
        ((*IN_TASK, exited(-signal.SIGKILL)), ("killed", 9, "id-1", True)),
        ((*IN_TASK, exited(-signal.SIGTERM)), ("killed", 15, "id-1", True)),
        ((*AFTER_TASK, exited(-signal.SIGKILL)), ("killed", 9, None, True)),
        ((*IN_TASK, exited(-signal.SIGSEGV)), ("crashed", 11, "id-1", True)),
        ((*IN_TASK, exited(-signal.SIGABRT)), ("crashed", 6, "id-1", True)),
        ((*IN_TASK, exited(-signal.SIGBUS)), ("crashed", 7, "id-1", True)),
        ((*IN_TASK, exited(-signal.SIGFPE)), ("crashed", 8, "id-1", True)),
        ((*IN_TASK, exited(-signal.SIGILL)), ("crashed", 4, "id-1", True)),
        ((*IN_TASK, exited(1)), ("exited", None, "id-1", True)),
        ((up(), exited(1)), ("crashed", None, None, True)),
        ((*IN_TASK, exited(15)), ("killed", 15, "id-1", True)),
        (IN_TASK, ("killed", None, "id-1", True)),
        ((up(),), ("killed", None, None, True)),
    ],
)
def test_the_end_of_a_child_is_classified_from_its_records(
    records: tuple[Record, ...], expected: tuple[object, ...]
) -> None:
    assert ending(*records) == expected


def test_a_child_whose_task_was_over_its_hard_limit_ended_by_that_limit() -> None:
    overdue = TaskOverdue(MAIN, 0, "id-1", "app.task")
    evidence: list[Record] = [overdue, down("shutdown", exit_code=-241), exited(-9)]
    endings = {
        (order, ending(*IN_TASK, *order)[0])
        for count in range(3)
        for order in permutations(evidence, count)
        if overdue in order
    }
    assert {reason for _, reason in endings} == {"time_limit"}


def test_a_time_limit_counts_although_the_task_s_end_came_before_it() -> None:
    # Celery's handler of SIGTERM raises in the task: its postrun comes, with no state.
    overdue = TaskOverdue(MAIN, 0, "id-1", "app.task")
    for records in ((*AFTER_TASK, overdue), (overdue, *AFTER_TASK)):
        assert ending(*records)[0] == "time_limit"


def test_the_task_over_its_limit_is_named_although_its_end_came_before() -> None:
    overdue = TaskOverdue(MAIN, 0, "id-1", "app.task")
    terminated = finished(CHILD, "id-1", state="TERMINATED")
    end = classify_end(state_of(*IN_TASK, overdue, terminated))
    assert end.task is not None
    assert (end.task.task_id, end.task.task) == ("id-1", "app.task")


def test_another_child_s_time_limit_is_not_this_one_s() -> None:
    overdue = TaskOverdue(MAIN, 0, "id-2", "app.task")
    assert ending(*IN_TASK, overdue, exited(-9)) == ("killed", 9, "id-1", True)


def test_the_main_process_ended_orderly_where_it_said_goodbye_and_was_lost_where_not() -> None:
    main = up(MAIN, MAIN_SLOT)
    assert ending(main, Goodbye(MAIN, 0), pid=MAIN) == ("shutdown", None, None, False)
    assert ending(main, pid=MAIN) == ("killed", None, None, True)
    assert ending(main, started(MAIN, "id-1"), pid=MAIN) == ("killed", None, "id-1", True)


def test_a_child_is_not_excused_by_the_goodbye_of_the_main_process() -> None:
    assert ending(up(), Goodbye(MAIN, 0)) == ("killed", None, None, True)


def test_a_goodbye_with_an_unknown_reason_is_a_shutdown() -> None:
    end = classify_end(state_of(up(), down("because")))
    assert isinstance(end.reason, ExitReason)


def test_losses_are_the_ends_that_are_neither_shutdown_nor_recycling_nor_shrinking() -> None:
    process = classify_end(state_of(up())).process
    losses = [r.value for r in ExitReason if ProcessEnd(process, r, None, None, 0).lost]
    assert losses == ["time_limit", "terminated", "oom_kill", "killed", "exited", "crashed"]


def test_an_end_is_classified_once_and_after_a_second() -> None:
    state = state_of(up(), down("max_tasks"))
    assert state.classify_ended(GONE_NS, all_now=True) == []
    state.gone(CHILD, GONE_NS)
    state.gone(CHILD, GONE_NS + 1)
    assert state.classify_ended(GONE_NS + CLASSIFY_AFTER_NS - 1) == []
    (end,) = state.classify_ended(GONE_NS + CLASSIFY_AFTER_NS)
    assert (end.time_ns, state.processes) == (GONE_NS, {})
    assert state.classify_ended(GONE_NS + 10 * CLASSIFY_AFTER_NS) == []


def test_an_end_without_any_record_is_classified_later() -> None:
    state = state_of(*IN_TASK)
    state.gone(CHILD, GONE_NS)
    assert state.classify_ended(GONE_NS + GIVE_UP_AFTER_NS - 1) == []
    state.apply(exited(-signal.SIGSEGV))
    (end,) = state.classify_ended(GONE_NS + GIVE_UP_AFTER_NS - 1)
    assert (end.reason, end.signal) == (ExitReason.CRASHED, 11)


def test_an_end_without_any_record_is_a_kill() -> None:
    state = state_of(*IN_TASK)
    state.gone(CHILD, GONE_NS)
    (end,) = state.classify_ended(GONE_NS + GIVE_UP_AFTER_NS)
    assert (end.reason, end.signal) == (ExitReason.KILLED, None)


def test_a_process_that_is_reaped_after_its_end_was_classified_does_not_come_back() -> None:
    state = state_of(*AFTER_TASK, down("max_tasks", exit_code=155))
    classify_end(state)
    state.apply(exited(155))
    assert state.processes == {}


def test_a_child_first_known_by_its_exit_has_its_slot() -> None:
    reported = TaskInFlight(CHILD, 7, "id-1", "app.task")
    state = state_of(exited(-signal.SIGKILL), reported)
    end = classify_end(state)
    assert (end.reason, end.process.slot) == (ExitReason.KILLED, 0)
    assert end.task == started(CHILD, "id-1", time_ns=7, rss_bytes=0)
    state.apply(reported)
    assert state.processes == {}


def test_a_pid_that_the_kernel_gives_out_again_is_a_new_process() -> None:
    state = state_of(*AFTER_TASK, down("max_tasks"))
    classify_end(state)
    state.apply(up(slot=3))
    process = state.processes[CHILD]
    assert (process.slot, process.rss_bytes, process.last, process.down) == (
        3,
        1_000,
        None,
        None,
    )
