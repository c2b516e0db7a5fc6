"""Tasks that wait for all children of their process: none of ours is among them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import Start, measured, wait_restarted

POOLS = {
    "solo": ["--pool=solo"],
    "threads": ["--pool=threads", "--concurrency=2"],
    "prefork": ["--concurrency=1"],
}


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_waits_for_all_children_meets_its_own_alone_and_the_worker_stops(
    start: Start, receiver: Receiver, pool: str
) -> None:
    with start(arguments=POOLS[pool]) as worker:
        assert worker.run("has_children") is False
        assert worker.run("reap_all") == []
        reporter = worker.reporter()
        assert reporter is not None
        # Nor the one that takes its place.
        os.kill(reporter, signal.SIGKILL)
        wait_restarted(worker, reporter, receiver.received)
        assert worker.run("reap_all") == []
        assert worker.run("has_children") is False
        successor = worker.reporter()
        worker.stop()
    wait_until("no reporter is left", lambda: not Path(f"/proc/{successor}").exists(), 30)
    assert measured(receiver.received) == {"reap_all": 2, "has_children": 2}
    said = f"the reporter (process {reporter}) ended after"
    assert worker.log().count(said) == 1, worker.log()
    assert worker.server.process.returncode == 0
