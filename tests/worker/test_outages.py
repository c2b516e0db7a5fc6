"""A broker that goes away in the middle of the work and comes back: telemetry goes on."""

from __future__ import annotations

import gc
import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.processes import free_ports, wait_until
from tests.redis_server import running_redis
from tests.worker.harness import (
    Broker,
    Start,
    children_of,
    exits,
    losses,
    measured,
    reporters_of,
    wait_measured,
)

OURS = re.compile(r"^(?!.*: INFO/).*(?:/memory reporter\]|otel_celery_memory).*$", re.MULTILINE)
"""What we have to say but how it is measured, and how much was."""


@pytest.mark.usefixtures("needs_redis")
def test_while_the_broker_is_away_tasks_and_deaths_are_reported_and_nothing_else_is_logged(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    with ExitStack() as redis:
        broker = Broker.redis(redis.enter_context(running_redis(tmp_path, port)))
        with start(broker=broker, arguments=["--concurrency=2"]) as worker:
            for _ in range(10):
                worker.run("noop")
            worker.send("sleep", 1, ignore_result=True)
            cut_id = worker.send("sleep", 60, ignore_result=True).id
            wait_until("both have come", lambda: worker.log().count("sleep[") == 2, 10)
            (reporter,), children = reporters_of(worker.pid), children_of(worker.pid)

            # Results unsubscribe from their Redis, while it is there.
            gc.collect()
            redis.close()
            wait_until("it is missed", lambda: "Connection refused" in worker.log(), 20)
            wait_measured(receiver.received, {"sleep": 1})
            # The main process only waits: it neither reaps them nor sends their exits.
            for pid in children:
                os.kill(pid, signal.SIGSEGV)
            wait_until("both are counted", lambda: exits(receiver.received) == {"crashed": 2}, 20)
            reported = losses(receiver.received)
            redis.enter_context(running_redis(tmp_path, port))

            for _ in range(10):
                worker.run("noop")
            last_id = worker.send("die", signal.SIGKILL, ignore_result=True).id
            wait_until("it is counted", lambda: "killed" in exits(receiver.received), 20)
            assert reporters_of(worker.pid) == [reporter]
            worker.stop()
        gc.collect()
    assert {event.attributes["celery.worker.exit.signal"] for event in reported} == {signal.SIGSEGV}
    assert {event.attributes.get("celery.task.id") for event in reported} == {cut_id, None}
    (killed,) = losses(receiver.received)[2:]
    assert killed.attributes["celery.task.id"] == last_id
    assert measured(receiver.received) == {"noop": 20, "sleep": 1}
    assert exits(receiver.received) == {"crashed": 2, "killed": 1, "shutdown": 2}
    lines = OURS.findall(worker.log())
    assert len(lines) == 3
    assert all("was lost" in line for line in lines)
