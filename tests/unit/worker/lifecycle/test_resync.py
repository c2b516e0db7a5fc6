"""Resync: processes, exits and tasks in flight, for a reporter that was started again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    NO_SPAN,
    ProcessExited,
    ProcessUp,
    TaskInFlight,
)
from otel_celery_memory.worker.lifecycle.periodic_checks import (
    resync,
    send_processes,
    send_tasks_in_flight,
)
from tests.unit.fakes import ListSink, exits_to


@dataclass(frozen=True)
class Request:
    """A request as Celery's main process keeps it."""

    id: str
    worker_pid: int | None
    time_start: float | None
    name: str = "shown to people"
    type: str = "app.task"


def test_the_main_process_and_each_child_are_sent_without_a_size() -> None:
    sink = ListSink()
    send_processes(sink, 10, [(11, 0), (12, 1)])
    sent = [record for record in sink.records if isinstance(record, ProcessUp)]
    assert [(r.pid, r.slot, r.rss_bytes) for r in sent] == [
        (10, MAIN_SLOT, 0),
        (11, 0, 0),
        (12, 1, 0),
    ]
    assert len(sink.records) == 3


def test_tasks_that_have_begun_in_a_known_process_are_sent() -> None:
    sink = ListSink()
    requests = [
        Request("a", 11, 1.5),
        Request("not begun", None, None),
        Request("accepted by nobody", 12, None),
        Request("elsewhere", 99, 1.0),
        Request("b", 10, 2.0),
    ]
    send_tasks_in_flight(sink, [10, 11, 12], requests)
    assert sink.records == [
        TaskInFlight(11, 1_500_000_000, "a", "app.task"),
        TaskInFlight(10, 2_000_000_000, "b", "app.task"),
    ]


def test_if_nothing_runs_nothing_is_sent() -> None:
    sink = ListSink()
    send_tasks_in_flight(sink, [10])
    assert sink.records == []


def died(pid: int, exit_code: int = -9, slot: int = 2) -> ProcessExited:
    """A child was reaped just now."""
    return ProcessExited(pid, time.time_ns(), exit_code, slot, 0, 0, NO_SPAN, "", "")


def test_a_reporter_that_was_started_again_is_sent_the_recent_exits() -> None:
    sink, ends = ListSink(), exits_to(ListSink())
    ends.record(died(13))
    resync(sink, 10, [(11, 0)], ends, acknowledged=[])
    assert [(type(record), record.pid) for record in sink.records if hasattr(record, "pid")] == [
        (ProcessUp, 10),
        (ProcessUp, 11),
        (ProcessExited, 13),
    ]


def test_acknowledged_exits_are_not_sent_again() -> None:
    sink, ends = ListSink(), exits_to(ListSink())
    for pid in (13, 14):
        ends.record(died(pid))
    resync(sink, 10, [], ends, acknowledged=frozenset((13,)))
    ended = [record.pid for record in sink.records if isinstance(record, ProcessExited)]
    assert ended == [14]
