"""Tasks that take our descriptors away: not a byte of ours in their files, and nothing waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import Start, losses, measured


@pytest.mark.parametrize("how", ["a file", "a full pipe"])
def test_a_task_that_has_other_files_under_our_numbers_gets_none_of_our_bytes_and_the_worker_stops(
    start: Start, receiver: Receiver, how: str
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        worker.run("noop")
        worker.run("take_descriptors", how)
        for _ in range(20):
            worker.run("free", 1 << 20)
        assert worker.run("users_bytes") == 0
        worker.stop()
        assert worker.server.process.returncode == 0
    assert losses(receiver.received) == []
    assert measured(receiver.received).get("noop") == 1
    users = Path(worker.server.log.parent / "users-file")
    assert not users.exists() or users.stat().st_size == 0


def test_a_child_whose_task_closes_all_and_opens_1100_files_is_measured_afterwards(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        worker.run("noop")
        worker.run("take_descriptors", "closes all")
        for _ in range(20):
            worker.run("free", 64 << 20)
        assert worker.run("users_bytes") == 0
        wait_until(
            "its runs are measured", lambda: measured(receiver.received).get("free") == 20, 60
        )
        worker.stop()
    assert (Path(worker.server.log.parent) / "users-file").stat().st_size == 0
    peaks = [
        point
        for point in receiver.received.latest("celery.task.memory.rss.peak")
        if point.attributes["celery.task.name"].endswith(".free")
    ]
    # Read anew: 64 MiB in each run.
    assert sum(point.count for point in peaks) == 20
    assert sum(point.value for point in peaks) >= 20 * 60 << 20
    assert "Traceback" not in worker.log()
