"""One whole pass over RabbitMQ: numbers, a kept size, a killed child with its task, the end."""

from __future__ import annotations

import os
import signal

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import (
    Broker,
    Start,
    exits,
    losses,
    measured,
    reporters_of,
    wait_answered,
    wait_measured,
    wait_restarted,
)

MIB = 1 << 20
SIZE = 64 * MIB


def test_over_rabbitmq_every_number_and_exit_is_reported_as_over_redis(
    start: Start, receiver: Receiver, rabbitmq: Broker
) -> None:
    with start(broker=rabbitmq, arguments=["--concurrency=2"]) as worker:
        for result in [worker.send("noop") for _ in range(200)]:
            result.get(timeout=300)
        for _ in range(3):
            worker.run("keep", SIZE)
        lost = worker.send("die", signal.SIGKILL)
        wait_measured(receiver.received, {"noop": 200, "keep": 3})
        wait_until("the loss is counted", lambda: "killed" in exits(receiver.received), 20)
        wait_answered(receiver.received)

        reporter = worker.reporter()
        assert reporter is not None
        os.kill(reporter, signal.SIGKILL)
        for _ in range(20):
            worker.run("noop")  # waits in the pipe meanwhile
        wait_restarted(worker, reporter, receiver.received)
        worker.stop()
        assert reporters_of(worker.pid) == []
    assert measured(receiver.received) == {"noop": 220, "keep": 3}
    (event,) = losses(receiver.received)
    assert event.attributes["celery.task.id"] == lost.id
    assert event.attributes["celery.task.name"] == "tests.worker.app.die"
    assert (
        event.attributes["celery.worker.exit.reason"],
        event.attributes["celery.worker.exit.signal"],
    ) == ("killed", 9)
    assert exits(receiver.received) == {"killed": 1, "shutdown": 2}
    kept = [
        point
        for point in receiver.received.latest("celery.task.memory.rss.delta")
        if point.attributes["celery.task.name"] == "tests.worker.app.keep"
    ]
    assert {point.attributes["celery.memory.direction"] for point in kept} == {"grow"}
    assert sum(point.count for point in kept) == 3
    assert sum(point.value for point in kept) / 3 == pytest.approx(SIZE, rel=0.05)
    dropped = receiver.received.latest("celery.memory.frames.dropped")
    # Of two reporters one after the other, each kind of frame.
    assert [point.value for point in dropped] == [0] * 6
    assert f"the reporter (process {reporter}) ended after" in worker.log()
