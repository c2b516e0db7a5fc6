"""Children that are spawned, not forked (Celery 5.7): one reporter, nothing lost, nothing left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import celery

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import (
    Start,
    Worker,
    children_of,
    exits,
    losses,
    measured,
    reporters_of,
    wait_measured,
)

SPAWNS = tuple(map(int, celery.__version__.split(".")[:2])) >= (5, 7)
MIB = 1 << 20


def environ(directory: Path) -> dict[str, str]:
    directory.mkdir()
    return {"TEST_START_METHOD": "spawn", "TMPDIR": str(directory)}


def spawned(worker: Worker) -> bool:
    """Whether the worker's children are new interpreters."""
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children_of(worker.pid)]
    return any(b"spawn" in command for command in commands)


def test_spawned_children_send_to_the_worker_s_one_reporter(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    arguments = ["--concurrency=1", "--max-tasks-per-child=3", "--max-memory-per-child=250000"]
    with start(arguments=arguments, environ=environ(tmp_path / "tmp")) as worker:
        assert spawned(worker) is SPAWNS
        for _ in range(4):
            worker.run("noop")
        worker.run("free", 300 * MIB)
        assert len(reporters_of(worker.pid)) == 1
        lost = worker.send("die", signal.SIGKILL)
        wait_until("the loss is reported", lambda: losses(receiver.received), 20)
        worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"noop": 5, "free": 1}
    assert exits(receiver.received, slot="0") == {
        "max_tasks": 1,
        "max_memory": 1,
        "killed": 1,
        "shutdown": 1,
    }
    (event,) = losses(receiver.received)
    assert event.attributes["celery.task.id"] == lost.id
    # One stream, whoever measured.
    assert {p.resource["service.instance.id"] for p in receiver.received.points} == {"w@test"}
    ours = [
        line
        for line in worker.log().splitlines()
        if "otel_celery_memory:" in line and ": INFO/" not in line
    ]
    # The pressure is over before the reporter looks, if the machine is busy.
    [loss] = [line for line in ours if "of max_memory_per_child are used" not in line]
    assert "was lost in tests.worker.app.die [" in loss
    assert list((tmp_path / "tmp").glob("otel-celery-memory-*")) == []


def test_a_spawned_pool_that_is_killed_as_a_whole_leaves_no_directory(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    options = {"arguments": ["--concurrency=1"], "environ": environ(tmp_path / "tmp")}
    with start(**options) as worker:
        for _ in range(5):
            worker.run("noop")
        wait_measured(receiver.received, {"noop": 5})
        found = list((tmp_path / "tmp").glob("otel-celery-memory-*"))
        assert [path.stat().st_mode & 0o777 for path in found] == [0o700] * SPAWNS
        os.kill(worker.pid, signal.SIGKILL)
        worker.server.process.wait(60)
        wait_until("the reporter has ended", lambda: not reporters_of(worker.pid), 20)
    assert list((tmp_path / "tmp").glob("otel-celery-memory-*")) == []
