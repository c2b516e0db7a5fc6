"""Ends that the main process does not report, as it waits for its broker: exit codes of zombies."""

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
)
from otel_celery_memory.reporter.state.processes import GIVE_UP_AFTER_NS
from otel_celery_memory.reporter.state.worker_state import WorkerState
from tests.unit.examples import finished, started

MAIN, CHILD = 10, 11
S = 1_000_000_000
IN_TASK = (ProcessUp(CHILD, 0, 0, 1_000), started(CHILD, "id-1"))
IDLE = (*IN_TASK, finished(CHILD, "id-1"))
RECYCLED = ProcessDown(CHILD, 0, 0, 155, 2_000, None, "max_tasks", "")
REVOKED = ProcessExited(CHILD, 0, -9, 0, 0, 0, NO_SPAN, "terminated", "")


def exits(state: WorkerState) -> list[tuple[Any, ...]]:
    """Pid, reason, signal, task and whether it is a loss, of all that are gone."""
    return [
        (e.process.pid, e.reason.value, e.signal, e.task.task_id if e.task else None, e.lost)
        for e in state.classify_ended(100 * S, all_now=True)
    ]


@pytest.mark.parametrize(
    ("records", "seen", "expected"),
    [
        (IN_TASK, -9, ("killed", 9, "id-1", True)),
        (IN_TASK, -11, ("crashed", 11, "id-1", True)),
        (IDLE, None, ("killed", None, None, True)),
        (
            (*IDLE, ProcessDown(CHILD, 0, 0, 155, 2_000, None, "max_tasks", "")),
            155,
            ("max_tasks", None, None, False),
        ),
        # Its parent's word, where that has come.
        (
            (*IN_TASK, ProcessExited(CHILD, 0, -9, 0, 0, 0, NO_SPAN, "terminated", "")),
            -11,
            ("terminated", 9, "id-1", True),
        ),
    ],
)
def test_if_the_main_process_reaps_no_children_the_exit_code_from_proc_counts(
    records: tuple[Record, ...], seen: int | None, expected: tuple[Any, ...]
) -> None:
    state = WorkerState()
    for record in records:
        state.apply(record)
    state.gone(CHILD, 5 * S, seen)
    ((_, *how),) = exits(state)
    assert tuple(how) == expected


def test_the_exit_code_from_proc_does_not_shorten_the_wait_for_the_main_process() -> None:
    state = WorkerState()
    for record in IN_TASK:
        state.apply(record)
    state.gone(CHILD, 5 * S, -9)
    assert state.classify_ended(5 * S + GIVE_UP_AFTER_NS - 1) == []
    state.apply(REVOKED)
    assert exits(state) == [(CHILD, "terminated", 9, "id-1", True)]


def test_the_main_process_s_exit_code_from_proc_is_not_used() -> None:
    state = WorkerState()
    state.apply(ProcessUp(MAIN, 0, MAIN_SLOT, 1_000))
    state.gone(MAIN, 5 * S, -11)
    assert exits(state) == [(MAIN, "killed", None, None, True)]
