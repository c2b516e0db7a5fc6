"""Which trace the task of a child belongs to, as the main process knows it from the message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from otel_celery_memory.ipc.records import NO_SPAN, ProcessExited
from otel_celery_memory.worker.lifecycle.child_exits import (
    ChildExitObserver,
    ChildTraceContexts,
    TaskTraceContext,
    message_span,
)
from tests.unit.fakes import ListSink, ends_to
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
def test_a_message_names_a_span_where_its_trace_is_sampled(
    headers: dict[str, Any], span: bytes
) -> None:
    assert message_span(headers) == span


def test_what_a_process_runs_now_is_known() -> None:
    traces = ChildTraceContexts([Request("a", 11), Request("b", 12, {}), Request("waits", None)])
    assert traces.of(11) == TaskTraceContext("a", SPAN)
    assert traces.of(12) == TaskTraceContext("b", NO_SPAN)
    assert traces.of(13) == TaskTraceContext()


def test_a_task_that_was_struck_off_is_known_if_it_was_seen() -> None:
    requests = [Request("a", 11)]
    traces = ChildTraceContexts(requests)
    traces.remember([11])
    requests.clear()
    traces.remember([11])
    assert traces.of(11) == TaskTraceContext("a", SPAN)


class JobPool:
    """What billiard's pool has of jobs whose process is gone."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def on_job_process_down(self, job: str, pid: int) -> None:
        self.told.append((job, pid))


def test_a_task_is_known_that_the_pool_strikes_off_when_its_process_is_gone() -> None:
    requests, pool = [Request("a", 11)], JobPool()
    traces = ChildTraceContexts(requests)
    traces.follow(pool)
    traces.follow(pool)
    pool.on_job_process_down("job", 11)
    requests.clear()
    assert traces.of(11) == TaskTraceContext("a", SPAN)
    assert pool.told == [("job", 11)]


def test_the_pool_has_its_own_method_back_and_somebody_else_s_is_left() -> None:
    pool, other = JobPool(), JobPool()
    traces = ChildTraceContexts([])
    traces.follow(pool)
    traces.release()
    assert pool.on_job_process_down == pool.__class__.on_job_process_down.__get__(pool)
    traces.follow(pool)
    theirs = pool.__dict__["on_job_process_down"] = other.on_job_process_down
    traces.release()
    assert pool.on_job_process_down is theirs


def test_where_requests_cannot_be_read_the_pool_goes_on() -> None:
    broken: list[Any] = [object()]
    pool = JobPool()
    ChildTraceContexts(broken).follow(pool)
    pool.on_job_process_down("job", 11)
    assert pool.told == [("job", 11)]


def test_a_pool_without_jobs_is_left_alone() -> None:
    ChildTraceContexts([]).follow(object())


def test_nothing_is_kept_of_processes_that_are_no_more() -> None:
    requests = [Request("a", 11)]
    traces = ChildTraceContexts(requests)
    traces.remember([11])
    requests.clear()
    traces.remember([12])
    assert traces.of(11) == TaskTraceContext()


@pytest.mark.parametrize(
    ("headers", "told"), [(SAMPLED, (SPAN, "a")), ({}, (NO_SPAN, ""))], ids=["sampled", "no trace"]
)
def test_the_end_of_a_child_is_told_with_the_span_of_its_task_if_it_has_one(
    headers: dict[str, Any], told: tuple[bytes, str]
) -> None:
    sink, child = ListSink(), Child(11, None)
    pool, requests = BilliardPool(child), [Request("a", 11, headers)]
    reaper = ChildExitObserver(ends_to(sink), ChildTraceContexts(requests))
    reaper.refresh_traces()
    reaper.follow(CeleryPool(pool))
    reaper.refresh_traces()
    requests.clear()
    child.exitcode = -9
    pool.on_process_down(child)
    (record,) = sink.records
    assert isinstance(record, ProcessExited)
    assert (record.span, record.task_id) == told
