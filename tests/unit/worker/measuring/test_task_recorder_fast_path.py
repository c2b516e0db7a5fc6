"""A recorder with a pipe of its own, as in a child of the pool: plain runs by the lane, or not."""

from __future__ import annotations

import os
import tracemalloc
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.records import (
    PartFailed,
    TaskFinished,
    TaskStarted,
)
from otel_celery_memory.worker.measuring.spans import TaskSpans
from tests.unit.forks import in_a_fork
from tests.unit.worker.recorder_bench import GENERAL, PLAIN, Child
from tests.unit.worker.recording import FailingSpans


def test_a_plain_run_is_told_in_one_frame_and_held_meanwhile(child: Child, task: Any) -> None:
    child.recorder.prerun("a", task)
    (held,) = child.held()
    assert (held.pid, held.task_id, held.task) == (os.getpid(), "a", "app.task")
    child.recorder.postrun("a", task, "SUCCESS")
    assert [type(record) for record in child.told()] == PLAIN
    assert child.held() == []


def test_a_run_whose_turn_it_is_to_be_traced_goes_the_general_way(task: Any) -> None:
    child = Child(tracing="budget")
    assert child.run(task) == PLAIN
    child.recorder.prerun("a", task)
    (started,) = [record for record in child.told() if isinstance(record, TaskStarted)]
    assert started.previous_task == "app.task"
    # A reporter that dies with it has told what it says of the task before.
    assert child.held() == [started._replace(retained_bytes=None, previous_task="")]
    child.recorder.postrun("a", task, "SUCCESS")
    # On a busy machine the guard may have ended the tracing, and told that, before.
    assert TaskFinished in map(type, child.told())
    assert child.held() == []
    child.close()


def test_where_a_user_traces_the_general_way_leaves_his_tracing_alone(
    child: Child, task: Any
) -> None:
    tracemalloc.start()
    peak = len(bytes(1 << 20))
    child.recorder.prerun("a", task)
    child.recorder.postrun("a", task, "SUCCESS")
    assert tracemalloc.get_traced_memory()[1] > peak  # it was not reset
    tracemalloc.stop()
    _, finished = child.told()
    assert isinstance(finished, TaskFinished)
    assert finished.traced_delta_bytes is None
    assert child.run(task) == PLAIN


def test_orders_that_are_new_are_heard_in_the_general_way(child: Child, task: Any) -> None:
    traced = Child(tracing="budget")
    assert traced.run(task) == PLAIN
    traced.pipe.page.set_commands(Commands("off"))
    assert traced.run(task) == GENERAL
    assert traced.run(task) == PLAIN
    traced.close()


def test_a_process_that_a_task_forked_tells_its_own_and_leaves_the_place_in_the_page_alone(
    child: Child, task: Any
) -> None:
    child.recorder.prerun("outer", task)
    held = child.held()

    def inner() -> None:
        child.recorder.prerun("inner", task)
        child.recorder.postrun("inner", task, "SUCCESS")

    pid = in_a_fork(inner)
    assert [(type(record), record.pid) for record in child.told()] == [
        (TaskStarted, pid),
        (TaskFinished, pid),
    ]
    assert child.held() == held
    child.recorder.postrun("outer", task, "SUCCESS")
    assert [(type(record), record.pid) for record in child.told()] == [(TaskFinished, os.getpid())]


def test_spans_that_fail_are_switched_off_and_the_plain_runs_go_on(task: Any) -> None:
    child = Child(FailingSpans(), tracing="off")
    assert child.run(task) == [PartFailed, *PLAIN]
    assert [child.run(task) for _ in range(3)] == [PLAIN] * 3
    child.close()


class LimitedSpans(TaskSpans):
    """A time limit strikes while the first task's span is looked for."""

    struck = False

    def of(self, task: Any, started_ns: int) -> Any:
        if not self.struck:
            self.struck = True
            raise SoftTimeLimitExceeded
        return super().of(task, started_ns)


def test_a_time_limit_in_the_search_for_a_span_switches_nothing_off(task: Any) -> None:
    child = Child(LimitedSpans(), tracing="off")
    assert child.run(task, "struck") == []
    assert child.run(task, "a") == GENERAL
    assert child.run(task, "b") == PLAIN
    child.close()


def test_descriptors_that_a_task_closed_are_opened_again(child: Child, task: Any) -> None:
    probe: Any = child.recorder._probe
    child.recorder.prerun("a", task)
    os.close(probe._statm.kept.fd)
    os.close(probe._clear_refs.kept.fd)
    child.recorder.postrun("a", task, "SUCCESS")
    assert [type(record) for record in child.told()] == PLAIN
    assert child.run(task) == PLAIN
