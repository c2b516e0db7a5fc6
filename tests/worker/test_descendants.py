"""Processes that tasks start: their sums by the kernel's own, their task, what is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from demo.receiver import Event, Receiver
from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, Start, Worker

MIB = 1 << 20
RSS, UNIQUE = "celery.worker.memory.descendants", "celery.worker.memory.descendants.unique"


@pytest.fixture
def left() -> Iterator[list[int]]:
    """Pids of processes that a test's tasks leave behind."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def levels(receiver: Receiver, metric: str, slot: str = "0") -> list[float]:
    """All values that arrived of a slot."""
    return [
        point.value
        for point in list(receiver.received.points)
        if point.metric == metric and point.attributes["celery.worker.slot"] == slot
    ]


def left_events(receiver: Receiver) -> list[Event]:
    return [e for e in list(receiver.received.events) if e.name == "celery.worker.descendants_left"]


def descendants(worker: Worker) -> list[dict[str, Any]]:
    """The rows of ``inspect memory``."""
    answer = worker.command("memory")
    rows: list[dict[str, Any]] = answer.get("memory", {}).get("descendants", [])
    return rows


def tree_peak(worker: Worker) -> int | None:
    """What ``inspect memory`` has of the only task that started processes."""
    tasks = worker.command("memory").get("memory", {}).get("tasks", [])
    return next((task["tree_peak"] for task in tasks if task["tree_peak"] is not None), None)


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_the_sum_of_a_tree_is_the_kernel_s_own_and_in_the_peak_of_the_run(
    start: Start, receiver: Receiver, pool: str
) -> None:
    arguments = ["--concurrency=1", f"--pool={pool}"]
    slot = "0" if pool == "prefork" else "main"
    with start(arguments=arguments, environ=CONTROLLED) as worker:
        sizes = worker.run("with_processes", 64 * MIB, 5).values()
        worker.run("noop")
        wait_until("none is left", lambda: levels(receiver, RSS, slot)[-1:] == [0], 10)
        peak_shown = wait_until("its peak is shown", lambda: tree_peak(worker), 10)
        worker.stop()
    rss_bytes, unique_bytes = (sum(size[kind] for size in sizes) for kind in ("rss", "unique"))
    assert max(levels(receiver, RSS, slot)) == pytest.approx(rss_bytes, rel=0.02)
    assert max(levels(receiver, UNIQUE, slot)) == pytest.approx(unique_bytes, rel=0.02)
    (peak,) = receiver.received.latest("celery.task.memory.tree.peak")
    assert peak.attributes == {"celery.task.name": "tests.worker.app.with_processes"}
    assert peak.count == 1
    assert peak.value == pytest.approx(rss_bytes, rel=0.1)
    assert peak_shown == peak.value
    assert left_events(receiver) == []


@pytest.mark.parametrize("how", ["child", "at once", "slowly"])
def test_what_is_left_behind_is_named_with_the_task_that_began_it(
    start: Start, receiver: Receiver, left: list[int], how: str
) -> None:
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        result = worker.send("leave_processes", 32 * MIB, how)
        left += result.get(timeout=300)
        worker.run("noop")
        (event,) = wait_until("it is told", lambda: left_events(receiver), 30)
        (row,) = wait_until("it is shown", lambda: descendants(worker), 10)
        text = str(wait_until("it is said", lambda: worker.command("memory").get("ok"), 10))
        worker.stop()
    assert event.severity == "WARN"
    named = {
        key: event.attributes[key]
        for key in (
            "celery.worker.slot",
            "celery.task.name",
            "celery.task.id",
            "process.pid",
            "celery.worker.descendant.processes",
        )
    }
    assert named == {
        "celery.worker.slot": "0",
        "celery.task.name": "tests.worker.app.leave_processes",
        "celery.task.id": result.id,
        "process.pid": left[0],
        "celery.worker.descendant.processes": 1,
    }
    assert event.attributes["celery.worker.descendant.unique"] == pytest.approx(32 * MIB, rel=0.25)
    assert event.attributes["celery.worker.descendant.age"] >= 5
    assert (row["task"], row["processes"], row["left"]) == (
        "tests.worker.app.leave_processes",
        1,
        1,
    )
    (size,) = receiver.received.latest("celery.worker.memory.descendants.left")
    assert size.attributes == {"celery.task.name": "tests.worker.app.leave_processes"}
    assert size.value == pytest.approx(32 * MIB, rel=0.25)
    assert "left behind" in text
    assert "tests.worker.app.leave_processes  0" in text


def test_each_process_is_of_its_task_where_runs_of_two_tasks_take_turns(
    start: Start, left: list[int]
) -> None:
    """The next run begins some milliseconds after the end of the one before."""
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        results = []
        for _ in range(15):
            worker.send("noop")
            results.append(worker.send("leave_processes", MIB, "child"))
        for result in results:
            left += result.get(timeout=300)
        rows = wait_until(
            "all are known",
            lambda: [row for row in descendants(worker) if row["left"] == 15],
            20,
        )
        assert [(row["task"], row["processes"]) for row in rows] == [
            ("tests.worker.app.leave_processes", 15)
        ]
        worker.stop()


def test_what_a_process_that_is_killed_leaves_behind_is_named_too(
    start: Start, receiver: Receiver, left: list[int]
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        left += worker.run("leave_processes", 32 * MIB, "child")
        wait_until("it is seen", lambda: any(levels(receiver, RSS)), 10)
        worker.signal_children("SIGKILL")
        (event,) = wait_until("it is told", lambda: left_events(receiver), 30)
        worker.stop()
    assert event.attributes["celery.task.name"] == "tests.worker.app.leave_processes"
    assert event.attributes["process.pid"] == left[0]


def test_the_pool_and_the_reporter_are_no_descendants(start: Start, receiver: Receiver) -> None:
    arguments = ["--concurrency=3", "--max-tasks-per-child=2"]
    with start(arguments=arguments, environ=CONTROLLED) as worker:
        for _ in range(20):
            worker.run("noop")
        worker.run("sleep", 12)
        assert descendants(worker) == []
        worker.stop()
    assert [point for point in receiver.received.points if point.metric == RSS] == []
