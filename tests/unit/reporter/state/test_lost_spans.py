"""The span of a lost process: of the task that it was running, or none."""

from __future__ import annotations

import pytest

from otel_celery_memory.ipc.records import (
    NO_SPAN,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    Record,
    TaskOverdue,
)
from otel_celery_memory.reporter.state.worker_state import WorkerState
from tests.unit.examples import finished, started

MAIN, CHILD = 10, 11
MESSAGES, OWN = bytes(range(1, 26)), bytes(range(31, 56))
IN_TASK = (ProcessUp(CHILD, 0, 0, 1_000), started(CHILD, "id-1"))
CUT = finished(CHILD, "id-1", state="TERMINATED", span=OWN)
GOODBYE = ProcessDown(CHILD, 0, 0, 0, 2_000, None, "shutdown", "")
OVERDUE = TaskOverdue(MAIN, 0, "id-1", "app.task")


def exited(span: bytes = NO_SPAN, task_id: str = "") -> ProcessExited:
    return ProcessExited(CHILD, 0, -9, 0, 0, 0, span, "", task_id)


@pytest.mark.parametrize(
    ("records", "span"),
    [
        ((exited(MESSAGES, "id-1"),), MESSAGES),
        ((exited(MESSAGES, "id-0"),), NO_SPAN),
        ((exited(),), NO_SPAN),
        ((OVERDUE, CUT, GOODBYE), OWN),
        ((OVERDUE, CUT, exited(MESSAGES, "id-1")), OWN),
        ((finished(CHILD, "id-1", span=OWN), exited(MESSAGES, "id-1")), NO_SPAN),
    ],
    ids=["message's", "an earlier task's", "none", "own", "own before message's", "no task"],
)
def test_a_loss_has_the_span_of_the_task_in_flight_or_none(
    records: tuple[Record, ...], span: bytes
) -> None:
    state = WorkerState()
    for record in (*IN_TASK, *records):
        state.apply(record)
    state.gone(CHILD, 5)
    (end,) = state.classify_ended(5, all_now=True)
    assert end.process.span_of(end.task) == span
