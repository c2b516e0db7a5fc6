"""Ends by the main process's signals and by others: the reason and the task."""

from __future__ import annotations

from typing import Any

import pytest

from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    NO_SPAN,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    Record,
    TaskOverdue,
    WorkerStopping,
)
from otel_celery_memory.reporter.state.exits import OomKills, signal_of_code
from otel_celery_memory.reporter.state.processes import GIVE_UP_AFTER_NS
from otel_celery_memory.reporter.state.worker_state import WorkerState
from tests.unit.examples import finished, started

MAIN, CHILD, OTHER = 10, 11, 12
S = 1_000_000_000
SIGTERM = -241
"""billiard's exit code after SIGTERM: 15 - 256."""
IN_TASK = (ProcessUp(CHILD, 0, 0, 1_000), started(CHILD, "id-1"))
IDLE = (*IN_TASK, finished(CHILD, "id-1"))
CUT = (*IN_TASK, finished(CHILD, "id-1", state="TERMINATED"))


def goodbye(exit_code: int) -> ProcessDown:
    return ProcessDown(CHILD, 0, 0, exit_code, 2_000, None, "shutdown", "")


def exited(exit_code: int, wanted: str = "", pid: int = CHILD) -> ProcessExited:
    return ProcessExited(pid, 0, exit_code, pid - CHILD, 0, 0, NO_SPAN, wanted, "")


def exits(state: WorkerState) -> list[tuple[Any, ...]]:
    """Pid, reason, signal, task and whether it is a loss, of all that are gone."""
    return [
        (e.process.pid, e.reason.value, e.signal, e.task.task_id if e.task else None, e.lost)
        for e in state.classify_ended(100 * S, all_now=True)
    ]


def ending(*records: Record, oom_kills: int = 0) -> tuple[Any, ...]:
    """Reason, signal, task and loss of a child that is gone at 5 s."""
    oom = OomKills(0)
    oom.update(0, 4 * S)
    oom.update(oom_kills, 5 * S)
    state = WorkerState(oom)
    for record in records:
        state.apply(record)
    state.gone(CHILD, 5 * S)
    ((_, *how),) = exits(state)
    return tuple(how)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        # The pool shrank: an idle child is asked to go, and says goodbye in its signal handler.
        ((*IDLE, goodbye(SIGTERM), exited(15, "autoscale")), ("autoscale", None, None, False)),
        ((*IDLE, exited(-9, "autoscale")), ("autoscale", None, None, False)),
        # It was given a task in that very moment.
        ((*CUT, goodbye(SIGTERM), exited(15, "autoscale")), ("autoscale", None, "id-1", True)),
        # Its task was revoked with terminate=True: SIGTERM, or the signal that was asked for.
        ((*CUT, goodbye(SIGTERM), exited(15, "terminated")), ("terminated", 15, "id-1", True)),
        ((*IN_TASK, exited(-9, "terminated")), ("terminated", 9, "id-1", True)),
        ((*IN_TASK, exited(-11, "terminated")), ("terminated", 11, "id-1", True)),
        # Somebody else sent SIGTERM.
        ((*IDLE, goodbye(SIGTERM), exited(15)), ("killed", 15, None, True)),
        ((*IDLE, goodbye(SIGTERM)), ("killed", 15, None, True)),
        ((*CUT, goodbye(SIGTERM), exited(15)), ("killed", 15, "id-1", True)),
        # The task called sys.exit(), with whatever code, or with a text: 1, and no goodbye.
        ((*CUT, goodbye(3), exited(3)), ("exited", None, "id-1", True)),
        ((*CUT, goodbye(0), exited(0)), ("exited", None, "id-1", True)),
        ((*CUT, goodbye(155), exited(155)), ("exited", None, "id-1", True)),
        ((*CUT, goodbye(15), exited(15)), ("exited", None, "id-1", True)),
        ((*CUT, goodbye(-1), exited(255)), ("exited", None, "id-1", True)),
        ((*CUT, exited(1)), ("exited", None, "id-1", True)),
        # It called os._exit(): 0 and 155 are no shutdown and no recycling in the middle of a run.
        ((*IN_TASK, exited(3)), ("exited", None, "id-1", True)),
        ((*IN_TASK, exited(0)), ("exited", None, "id-1", True)),
        ((*IN_TASK, exited(155)), ("exited", None, "id-1", True)),
        # The goodbye of an idle child was dropped.
        ((*IDLE, exited(0)), ("shutdown", None, None, False)),
        ((*IDLE, exited(155)), ("max_tasks", None, None, False)),
        # The end of a run and a goodbye were dropped while the worker stopped.
        ((*IN_TASK, WorkerStopping(MAIN, 0), exited(0)), ("shutdown", None, "id-1", False)),
        ((*IN_TASK, WorkerStopping(MAIN, 0), exited(155)), ("max_tasks", None, "id-1", False)),
        # The last run of a worker that stops calls os._exit().
        ((*IN_TASK, WorkerStopping(MAIN, 0), exited(7)), ("exited", None, "id-1", True)),
        ((*IN_TASK, WorkerStopping(MAIN, 0), exited(-11)), ("crashed", 11, "id-1", True)),
        # The worker stops: it asked them all to go.
        ((*IDLE, WorkerStopping(MAIN, 0), goodbye(SIGTERM)), ("shutdown", None, None, False)),
        (
            (*CUT, goodbye(SIGTERM), exited(15, "terminated"), WorkerStopping(MAIN, 0)),
            ("shutdown", None, None, False),
        ),
        # A hard time limit counts, whatever signal ended the process.
        (
            (*CUT, TaskOverdue(MAIN, 0, "id-1", "t"), goodbye(SIGTERM), exited(-9)),
            ("time_limit", None, "id-1", True),
        ),
        ((*IN_TASK, exited(-9, "no such reason")), ("killed", 9, "id-1", True)),
    ],
)
def test_the_main_process_s_reason_decides_whether_it_ended_a_child(
    records: tuple[Record, ...], expected: tuple[object, ...]
) -> None:
    assert ending(*records) == expected


@pytest.mark.parametrize(
    ("records", "how"),
    [
        ((exited(-9),), ("killed", 9)),
        ((exited(-11),), ("crashed", 11)),
        ((exited(-9, "terminated"),), ("terminated", 9)),
        ((goodbye(SIGTERM), exited(15)), ("killed", 15)),
    ],
)
def test_a_child_that_was_idle_when_it_died_is_lost_in_no_task_although_an_end_was_dropped(
    records: tuple[Record, ...], how: tuple[str, int]
) -> None:
    *before, last = records
    assert ending(*IN_TASK, *records) == (*how, "id-1", True)
    assert isinstance(last, ProcessExited)
    assert ending(*IN_TASK, *before, last._replace(idle=1)) == (*how, None, True)


def test_idle_on_the_page_counts_although_the_main_process_did_not_see_it() -> None:
    state = WorkerState()
    for record in IN_TASK:
        state.apply(record)
    state.processes[CHILD].idle = True
    state.apply(exited(-9))
    state.gone(CHILD, 5 * S)
    assert exits(state) == [(CHILD, "killed", 9, None, True)]


def test_after_a_goodbye_by_signal_the_main_process_s_reason_is_awaited() -> None:
    state = WorkerState()
    for record in (*IDLE, goodbye(SIGTERM)):
        state.apply(record)
    state.gone(CHILD, 5 * S)
    assert state.classify_ended(5 * S + GIVE_UP_AFTER_NS - 1) == []
    state.apply(exited(15, "autoscale"))
    (end,) = state.classify_ended(5 * S + GIVE_UP_AFTER_NS - 1)
    assert end.reason.value == "autoscale"


@pytest.mark.parametrize(
    ("code", "expected"), [(3, 3), (0, 0), (-9, None), (15, None), (None, None)]
)
def test_the_exit_code_of_an_end_is_known_unless_a_signal_ended_it(
    code: int | None, expected: int | None
) -> None:
    state = WorkerState()
    for record in IN_TASK:
        state.apply(record)
    if code is not None:
        state.apply(exited(code))
    state.gone(CHILD, 5 * S)
    (end,) = state.classify_ended(5 * S, all_now=True)
    assert end.exit_code == expected


@pytest.mark.parametrize(
    ("code", "number"),
    [(0, None), (155, None), (-9, 9), (-11, 11), (-64, 64), (-241, 15), (-253, 3), (-300, None)],
)
def test_a_signal_is_read_from_the_kernel_s_exit_codes_and_from_billiard_s(
    code: int, number: int | None
) -> None:
    assert signal_of_code(code) == number


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ((*IN_TASK, exited(-9)), "oom_kill"),
        (IN_TASK, "oom_kill"),
        (IDLE, "oom_kill"),
        ((*IN_TASK, exited(-11)), "crashed"),
        ((*IN_TASK, exited(-15)), "killed"),
        ((*IN_TASK, exited(-9, "terminated")), "terminated"),
        ((*IDLE, goodbye(155), exited(155)), "shutdown"),
        ((*IN_TASK, TaskOverdue(MAIN, 0, "id-1", "t"), exited(-9)), "time_limit"),
    ],
)
def test_a_sigkill_while_the_count_of_oom_kills_rose_is_an_oom_kill(
    records: tuple[Record, ...], reason: str
) -> None:
    assert ending(*records, oom_kills=1)[0] == reason


def test_a_kill_is_claimed_once_and_by_the_largest() -> None:
    oom = OomKills(0)
    oom.update(0, 4 * S)
    state = WorkerState(oom)
    for pid, rss_bytes in ((CHILD, 1_000), (OTHER, 9_000)):
        state.apply(ProcessUp(pid, 0, pid - CHILD, rss_bytes))
        state.apply(exited(-9, pid=pid))
        state.gone(pid, 5 * S)
    oom.update(1, 5 * S)
    assert exits(state) == [
        (CHILD, "killed", 9, None, True),
        (OTHER, "oom_kill", 9, None, True),
    ]


def test_ends_that_are_classified_together_are_in_the_order_in_which_they_came() -> None:
    state = WorkerState(OomKills(0))
    for pid, gone_s, rss_bytes in ((OTHER, 6, 1_000), (CHILD, 5, 500), (MAIN, 7, 700)):
        state.apply(ProcessUp(pid, 0, MAIN_SLOT if pid == MAIN else pid - CHILD, rss_bytes))
        state.gone(pid, gone_s * S)
    assert [pid for pid, *_ in exits(state)] == [MAIN, CHILD, OTHER]


def test_of_a_worker_that_is_gone_with_its_children_the_main_process_was_the_victim() -> None:
    oom = OomKills(0)
    oom.update(0, 4 * S)
    state = WorkerState(oom)
    for pid, slot, rss_bytes in ((CHILD, 0, 9_000), (MAIN, MAIN_SLOT, 1_000)):
        state.apply(ProcessUp(pid, 0, slot, rss_bytes))
        state.gone(pid, 5 * S)
    oom.update(1, 5 * S)
    assert [(pid, reason) for pid, reason, *_ in exits(state)] == [
        (MAIN, "oom_kill"),
        (CHILD, "killed"),
    ]
