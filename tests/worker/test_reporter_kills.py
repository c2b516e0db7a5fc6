"""When a reporter is killed nothing is lost: its successor exports what it had read."""

from __future__ import annotations

import os
import signal

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import (
    Start,
    children_of,
    exits,
    losses,
    measured,
    wait_answered,
    wait_measured,
)


def test_what_a_killed_reporter_had_read_and_not_exported_is_exported_by_the_next(
    start: Start, receiver: Receiver
) -> None:
    # No export falls between: all that ran is in the killed reporter alone.
    environ = {"OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "600"}
    with start(arguments=["--concurrency=2"], environ=environ) as worker:
        for _ in range(20):
            worker.run("keep", 1 << 20)
        worker.send("die", signal.SIGKILL)
        wait_until("the loss is reported", lambda: losses(receiver.received), 20)
        for _ in range(20):
            worker.run("allocate", 1)
        reporter = worker.reporter()
        assert reporter is not None
        os.kill(reporter, signal.SIGKILL)
        wait_until("a new reporter", lambda: worker.reporter() not in (None, reporter), 20)
        for _ in range(5):
            worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"keep": 20, "allocate": 20, "noop": 5}
    peaks = receiver.received.latest("celery.task.memory.rss.peak")
    assert sum(point.count for point in peaks) == 45
    retained = receiver.received.latest("celery.task.memory.rss.retained")
    # What the task that killed its process retained is not known.
    assert sum(point.count for point in retained) == 45
    assert len(losses(receiver.received)) == 1
    assert exits(receiver.received)["shutdown"] == 2


def test_a_death_is_reported_whose_reporter_and_worker_end_right_after_it(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=2"]) as worker:
        worker.run("noop")
        wait_measured(receiver.received, {"noop": 1})
        reporter, children = worker.reporter(), set(children_of(worker.pid))
        assert reporter is not None
        task_id = worker.send("die", signal.SIGKILL).id
        wait_until("it is reaped", lambda: set(children_of(worker.pid)) - children, 20)
        # Its records are exported, and its exit is not classified yet.
        wait_answered(receiver.received)
        os.kill(reporter, signal.SIGKILL)
        worker.stop()
    assert {event.attributes["celery.task.id"] for event in losses(receiver.received)} == {task_id}


def test_what_was_exported_is_not_exported_again(start: Start, receiver: Receiver) -> None:
    with start(arguments=["--concurrency=2"]) as worker:
        for _ in range(20):
            worker.run("noop")
        wait_measured(receiver.received, {"noop": 20})
        reporter = worker.reporter()
        assert reporter is not None
        wait_answered(receiver.received)
        os.kill(reporter, signal.SIGKILL)
        wait_until("a new reporter", lambda: worker.reporter() not in (None, reporter), 20)
        worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"noop": 21}
