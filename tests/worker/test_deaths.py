"""Children, reporters and whole workers that are killed: nothing measured before is lost."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import (
    CONTROLLED,
    Start,
    children_of,
    exits,
    losses,
    measured,
    reporters_of,
    wait_answered,
    wait_measured,
    wait_restarted,
)


def test_a_child_killed_in_a_task_then_its_reporter_then_the_worker_lose_nothing_measured(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=2"]) as worker:
        for _ in range(20):
            worker.run("noop")
        lost = worker.send("die", signal.SIGKILL)
        wait_until("the loss is reported", lambda: losses(receiver.received), 15)
        (event,) = losses(receiver.received)
        reported = {**event.attributes}
        assert reported.pop("celery.task.age") >= 0
        assert reported.pop("process.pid") not in children_of(worker.pid)
        assert reported.pop("celery.worker.slot") in ("0", "1")
        reported.pop("celery.task.memory.rss.peak", 0)  # if it was read in its few milliseconds
        for size in ("process.rss", "process.rss_peak"):
            assert reported.pop(f"celery.worker.{size}") > 10 << 20
        assert reported.pop("celery.task.memory.rss.start") > 10 << 20
        # OOM kills of other processes, if the machine counts them.
        reported.pop("celery.worker.cgroup.oom_kills", 0)
        assert reported == {
            "celery.worker.exit.reason": "killed",
            "celery.worker.exit.signal": 9,
            "celery.worker.exit.repeated": 1,
            "celery.task.name": "tests.worker.app.die",
            "celery.task.id": lost.id,
        }
        assert event.severity == "ERROR"
        for _ in range(20):
            worker.run("noop")

        # What the reporter had was exported: an interval of silence passes first.
        wait_measured(receiver.received, {"noop": 40})
        wait_answered(receiver.received)
        reporter = worker.reporter()
        assert reporter is not None
        os.kill(reporter, signal.SIGKILL)
        for _ in range(20):
            worker.run("noop")  # waits in the pipe meanwhile
        wait_restarted(worker, reporter, receiver.received)
        wait_measured(receiver.received, {"noop": 60})

        for _ in range(20):
            worker.run("noop")
        worker.wait_ended()
        os.kill(worker.pid, signal.SIGKILL)
        worker.server.process.wait(60)
        wait_until("the reporter has ended", lambda: not reporters_of(worker.pid), 15)
    assert measured(receiver.received) == {"noop": 80}
    main = [e for e in losses(receiver.received) if e.attributes["celery.worker.slot"] == "main"]
    assert [(e.attributes["celery.worker.exit.reason"], e.severity) for e in main] == [
        ("killed", "ERROR")
    ]
    assert all(
        point.value == 0 for point in receiver.received.latest("celery.memory.frames.dropped")
    )


@pytest.mark.parametrize(
    ("task", "arguments", "reason", "number"),
    [
        ("die", (int(signal.SIGSEGV),), "crashed", int(signal.SIGSEGV)),
        ("die", (int(signal.SIGKILL),), "killed", int(signal.SIGKILL)),
        ("die", (int(signal.SIGTERM),), "killed", int(signal.SIGTERM)),
        ("leave", (3,), "exited", None),
        ("stuck", (), "time_limit", None),
    ],
)
def test_a_lost_child_is_reported_with_its_reason_and_task(
    start: Start,
    receiver: Receiver,
    task: str,
    arguments: tuple[Any, ...],
    reason: str,
    number: int | None,
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        worker.send(task, *arguments)
        wait_until("the loss is reported", lambda: losses(receiver.received), 20)
        worker.run("noop")
        worker.stop()
    (event,) = losses(receiver.received)
    assert event.attributes["celery.worker.exit.reason"] == reason
    assert event.attributes.get("celery.worker.exit.signal") == number
    assert exits(receiver.received, slot="0") == {reason: 1, "shutdown": 1}


def test_a_task_that_runs_others_in_threads_is_measured_and_named_where_it_dies(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        worker.run("fan_out", 10)
        for _ in range(20):
            worker.run("noop")
        wait_measured(receiver.received, {"fan_out": 1, "noop": 30})
        deltas = receiver.received.latest("celery.task.memory.rss.delta")
        # What ran beside others in one process has no numbers of its own; what came after has.
        assert sum(point.count for point in deltas) == 20
        worker.send("fan_out", 10, signal.SIGKILL)
        wait_until("the loss is reported", lambda: losses(receiver.received), 20)
    (lost,) = losses(receiver.received)
    assert lost.attributes["celery.task.name"] == "tests.worker.app.fan_out"


def test_a_child_over_its_memory_limit_is_counted_as_recycled_and_not_as_lost(
    start: Start, receiver: Receiver
) -> None:
    limited = ["--concurrency=1", "--max-memory-per-child=150000"]
    with start(arguments=limited) as worker:
        worker.run("free", 200 << 20)
        worker.run("noop")
        worker.stop()
    assert exits(receiver.received, slot="0") == {"max_memory": 1, "shutdown": 1}
    assert losses(receiver.received) == []


def test_a_cold_shutdown_leaves_no_process_and_says_goodbye(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=2"], environ=CONTROLLED) as worker:
        worker.run("noop")
        # One that has come and has not begun, Celery waits for as in a warm shutdown.
        worker.send("hoard", 600, 0.1)
        worker.wait_accepted("hoard")
        worker.server.process.send_signal(signal.SIGQUIT)
        worker.server.process.wait(60)
        assert reporters_of(worker.pid) == []
    assert measured(receiver.received)["noop"] == 1
    ends = {
        (point.attributes["celery.worker.slot"], point.attributes["celery.worker.exit.reason"])
        for point in receiver.received.latest("celery.worker.process.exits")
    }
    assert ("main", "shutdown") in ends


def test_a_soft_time_limit_is_raised_in_the_task_as_ever(start: Start) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        assert worker.run("overdue") == "SoftTimeLimitExceeded"
        worker.stop()


def test_a_task_that_closes_our_descriptors_does_no_harm_and_measuring_goes_on(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        worker.run("noop")
        worker.run("close_descriptors")
        for _ in range(5):
            worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"noop": 6, "close_descriptors": 1}
    assert losses(receiver.received) == []
    assert exits(receiver.received, slot="0") == {"shutdown": 1}
    assert "Traceback" not in worker.log()
