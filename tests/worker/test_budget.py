"""Tracing within the budget, in real workers: the line that leaks, the guard, time limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.receiver import Event, Receiver
from tests.processes import wait_until
from tests.worker.harness import Start

APP = Path(__file__).parent / "app.py"
TASK = "tests.worker.app.churn_and_keep"
LEAK_BYTES = 1024


def line_of(comment: str) -> int:
    """The line of the test app with this comment."""
    return next(
        number for number, line in enumerate(APP.read_text().splitlines(), 1) if comment in line
    )


def sites(receiver: Receiver) -> list[Event]:
    """Site events so far."""
    events = list(receiver.received.events)
    return [event for event in events if event.name == "celery.memory.allocation_site"]


@pytest.mark.long
def test_a_line_that_leaks_a_kibibyte_a_run_is_named_first_by_default(
    start: Start, receiver: Receiver
) -> None:
    def named() -> list[Event]:
        for result in [worker.send("churn_and_keep", LEAK_BYTES) for _ in range(200)]:
            result.get(timeout=300)
        return [
            event
            for event in sites(receiver)
            if event.attributes["celery.memory.site.rank"] == 1
            and event.attributes["celery.memory.site.window"] == "complete"
        ]

    with start() as worker:
        # Sites are exported every minute; if fewer than hundreds of tasks run in a second, the
        # first export may have what first runs left.
        first = wait_until("a line is named", named, 300)[0].attributes
    assert (first["code.file.path"], first["code.line.number"]) == (
        str(APP),
        line_of("the line that leaks in churn_and_keep"),
    )
    assert first["celery.task.name"] == TASK
    # The bytes, their bytearray, and now and then another block of the deque.
    assert LEAK_BYTES < first["celery.memory.site.size"] < 2 * LEAK_BYTES
    # How much is a time, and so no verdict: tests/unit hold the sampler to its budget by a clock.
    (overhead,) = receiver.received.latest("celery.memory.tracing.overhead")
    assert 0 < overhead.value < 1


def test_a_child_that_shares_its_heap_with_the_main_process_is_not_made_to_copy_it(
    start: Start,
) -> None:
    environ = {"OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        before = worker.run("full_collections")
        wait_until("a run is traced", lambda: worker.run("is_traced"), 60)
        for _ in range(200):
            worker.run("noop")
        assert worker.run("full_collections") == before
        worker.stop()


def test_a_line_that_leaks_is_named_where_each_child_runs_one_task(
    start: Start, receiver: Receiver
) -> None:
    # So much that a test need not wait for hundreds of children.
    environ = {
        "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5",
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
        # What is left once in each child by a first run may be more than what leaks.
        "OTEL_CELERY_MEMORY_SITES_TOP": "100",
    }

    def named() -> bool:
        for result in [worker.send("churn_and_keep", LEAK_BYTES) for _ in range(8)]:
            result.get(timeout=300)
        return bool(first())

    def first() -> list[Event]:
        return [
            event
            for event in sites(receiver)
            if event.attributes["celery.memory.site.window"] == "first_run"
            and event.attributes["code.file.path"] == str(APP)
            and event.attributes["code.line.number"] == line_of("leaks in churn_and_keep")
        ]

    arguments = ["--concurrency=4", "--max-tasks-per-child=1"]
    with start(arguments=arguments, environ=environ) as worker:
        wait_until("the line is named", named, 120)
    assert all(
        LEAK_BYTES < event.attributes["celery.memory.site.size"] < 2 * LEAK_BYTES
        for event in first()
    )
    windows = {event.attributes["celery.memory.site.window"] for event in sites(receiver)}
    assert windows <= {"first_run", "partial"}


def test_a_soft_time_limit_is_raised_in_the_task_with_the_capture_signal_on(
    start: Start, receiver: Receiver
) -> None:
    with start(environ={"OTEL_CELERY_MEMORY_CAPTURE_SIGNAL": "true"}) as worker:
        assert worker.run("overdue") == "SoftTimeLimitExceeded"
        # And after a capture by signal has been in the same child.
        worker.signal_children("SIGURG")
        for _ in range(4):
            assert worker.run("overdue") == "SoftTimeLimitExceeded"


def test_a_task_that_traces_by_itself_keeps_its_tracing(start: Start) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        assert worker.run("trace_by_itself") == 7
        # Many enough for a window of ours to be due.
        for result in [worker.send("keep", 1) for _ in range(300)]:
            result.get(timeout=300)
        assert worker.run("traceback_limit") == 7


@pytest.mark.parametrize("tracing", ["budget", "always"])
def test_a_task_that_asks_tracemalloc_gets_what_it_would_without_us(
    start: Start, tracing: str
) -> None:
    environ = {
        "OTEL_CELERY_MEMORY_TRACING": tracing,
        "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5",
        "OTEL_CELERY_MEMORY_MAX_ADDED_LATENCY": "0.01",
    }
    with start(arguments=["--concurrency=2", "--max-tasks-per-child=3"], environ=environ) as worker:
        results = [worker.send("trace_if_nobody_does", 3) for _ in range(40)]
        assert [result.get(timeout=300) for result in results] == [[5, 5, 5]] * 40


def test_a_traced_run_has_no_thread_beside_it(start: Start) -> None:
    environ = {"OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        results = [worker.send("threads") for _ in range(200)]
        assert {result.get(timeout=300) for result in results} == {1}
