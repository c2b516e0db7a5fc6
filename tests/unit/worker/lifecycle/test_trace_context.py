"""The trace context of a child's task, as the main process reads it from the message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from otel_celery_memory.ipc.records import NO_SPAN, ProcessExited
from otel_celery_memory.worker.lifecycle.child_exits import (
    ChildExitObserver,
    ChildMessages,
    TaskMessage,
    message_span,
)
from tests.unit.fakes import ListSink, exits_to
from tests.unit.worker.lifecycle.test_child_exits import BilliardPool, CeleryPool, Child

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SPAN = bytes.fromhex(TRACE + PARENT + "01")
SAMPLED = {"id": "a", "traceparent": f"00-{TRACE}-{PARENT}-01"}


@dataclass(frozen=True)
class Request:
    """A request as Celery's main process keeps it."""

    id: str
    worker_pid: int | None
    request_dict: dict[str, Any] = field(default_factory=lambda: SAMPLED)
    delivery_info: object = None


@pytest.mark.parametrize(
    ("headers", "span"),
    [
        (SAMPLED, SPAN),
        ({"id": "a", "traceparent": f"00-{TRACE}-{PARENT}-00"}, NO_SPAN),
        ({"id": "a"}, NO_SPAN),
        ({"traceparent": "nonsense"}, NO_SPAN),
        ({"traceparent": 7}, NO_SPAN),
        ({"traceparent": None}, NO_SPAN),
        ({"traceparent": []}, NO_SPAN),
    ],
)
def test_a_message_has_a_span_if_its_trace_is_sampled(headers: dict[str, Any], span: bytes) -> None:
    assert message_span(headers) == span


def test_what_a_process_runs_now_is_known() -> None:
    traces = ChildMessages([Request("a", 11), Request("b", 12, {}), Request("waits", None)])
    assert traces.of(11) == TaskMessage("a", SPAN)
    assert traces.of(12) == TaskMessage("b", NO_SPAN)
    assert traces.of(13) == TaskMessage()


@pytest.mark.parametrize(
    ("delivery", "redelivered"),
    [({"redelivered": True}, 1), ({"redelivered": False}, 0), ({}, 0), (None, 0), ("odd", 0)],
)
def test_a_message_says_whether_it_was_delivered_before(delivery: object, redelivered: int) -> None:
    assert ChildMessages([Request("a", 11, {}, delivery)]).of(11).redelivered == redelivered


def test_a_task_whose_request_was_removed_is_known_if_it_was_remembered() -> None:
    requests = [Request("a", 11)]
    traces = ChildMessages(requests)
    traces.remember([11])
    requests.clear()
    traces.remember([11])
    assert traces.of(11) == TaskMessage("a", SPAN)


class JobPool:
    """What billiard's pool has of jobs whose process is gone."""

    def __init__(self) -> None:
        self.called: list[tuple[str, int]] = []

    def on_job_process_down(self, job: str, pid: int) -> None:
        self.called.append((job, pid))


def test_a_task_is_known_whose_request_the_pool_removes_after_its_process_died() -> None:
    requests, pool = [Request("a", 11)], JobPool()
    traces = ChildMessages(requests)
    traces.follow(pool)
    traces.follow(pool)
    pool.on_job_process_down("job", 11)
    requests.clear()
    assert traces.of(11) == TaskMessage("a", SPAN)
    assert pool.called == [("job", 11)]


def test_release_restores_the_pool_s_method_and_leaves_a_replaced_one() -> None:
    pool, other = JobPool(), JobPool()
    traces = ChildMessages([])
    traces.follow(pool)
    traces.release()
    assert pool.on_job_process_down == pool.__class__.on_job_process_down.__get__(pool)
    traces.follow(pool)
    theirs = pool.__dict__["on_job_process_down"] = other.on_job_process_down
    traces.release()
    assert pool.on_job_process_down is theirs


def test_if_requests_cannot_be_read_the_pool_goes_on() -> None:
    broken: list[Any] = [object()]
    pool = JobPool()
    ChildMessages(broken).follow(pool)
    pool.on_job_process_down("job", 11)
    assert pool.called == [("job", 11)]


def test_a_pool_without_jobs_is_left_alone() -> None:
    ChildMessages([]).follow(object())


def test_nothing_is_kept_of_processes_that_have_ended() -> None:
    requests = [Request("a", 11)]
    traces = ChildMessages(requests)
    traces.remember([11])
    requests.clear()
    traces.remember([12])
    assert traces.of(11) == TaskMessage()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [(SAMPLED, (SPAN, "a")), ({}, (NO_SPAN, "a"))],
    ids=["sampled", "no trace"],
)
def test_the_exit_of_a_child_has_the_span_of_its_task_if_there_is_one(
    headers: dict[str, Any], expected: tuple[bytes, str]
) -> None:
    sink, child = ListSink(), Child(11, None)
    pool, requests = BilliardPool(child), [Request("a", 11, headers)]
    observer = ChildExitObserver(exits_to(sink), ChildMessages(requests))
    observer.refresh_messages()
    observer.follow(CeleryPool(pool))
    observer.refresh_messages()
    requests.clear()
    child.exitcode = -9
    pool.on_process_down(child)
    (record,) = sink.records
    assert isinstance(record, ProcessExited)
    assert (record.span, record.task_id) == expected
