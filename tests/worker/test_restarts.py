"""A worker that restarts itself at SIGHUP: the new one is measured, of the old nothing stays."""

from __future__ import annotations

import os
import signal

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
)


def test_after_sighup_the_new_worker_is_measured_and_the_old_one_ended_orderly(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=2"], environ=CONTROLLED) as worker:
        for _ in range(10):
            worker.run("noop")
        (former,), children = reporters_of(worker.pid), children_of(worker.pid)
        running = worker.send("sleep", 1)
        worker.wait_accepted("sleep")

        os.kill(worker.pid, signal.SIGHUP)
        wait_until("the new one is ready", lambda: worker.log().count("w@test ready") == 2, 30)
        assert running.get(timeout=5) in children
        (successor,) = reporters_of(worker.pid)
        assert successor != former
        assert not set(children_of(worker.pid)) & set(children)
        for _ in range(10):
            worker.run("noop")
        worker.stop()
        assert reporters_of(worker.pid) == []
    assert measured(receiver.received) == {"noop": 20, "sleep": 1}
    assert exits(receiver.received) == {"shutdown": 4}
    assert losses(receiver.received) == []
    # Two streams, one after the other, of one node.
    streams = {
        (point.resource["service.instance.id"], point.start_ns)
        for point in receiver.received.latest("celery.memory.reporter.restarts")
    }
    assert [node for node, _ in streams] == ["w@test", "w@test"]
    assert "Traceback" not in worker.log()
