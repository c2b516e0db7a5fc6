"""A worker that is process 1 of its container: it reaps what is ours, and all ends with it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import (
    Start,
    Worker,
    children_of,
    exits,
    losses,
    measured,
    wait_answered,
    wait_measured,
)
from tests.worker.namespaces import CONTAINER, inhabitants, needs_processes

CELERY = str(Path(sys.executable).parent / "celery")


@contextmanager
def contained(start: Start, **options: object) -> Iterator[Worker]:
    """A worker that is process 1; its pids are those seen from here."""
    with start(prefix=[*CONTAINER, CELERY], **options) as outside:
        (main_pid,) = children_of(outside.pid)
        yield replace(outside, main_pid=main_pid)


def reporter_in(worker: Worker) -> int | None:
    """The pid of the reporter, as seen from here."""
    for pid in inhabitants(worker.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"otel_celery_memory.reporter" in words:
            assert b"--main-pid=1" in words
            return pid
    return None


@needs_processes
def test_as_process_1_it_tells_of_deaths_and_no_zombie_stays(
    start: Start, receiver: Receiver
) -> None:
    with contained(start, arguments=["--concurrency=2"]) as worker:
        for _ in range(10):
            worker.run("noop")
        lost = worker.send("die", signal.SIGKILL)
        wait_until("the loss is counted", lambda: "killed" in exits(receiver.received), 20)
        wait_measured(receiver.received, {"noop": 10})
        wait_answered(receiver.received)

        reporter = reporter_in(worker)
        assert reporter is not None
        os.kill(reporter, signal.SIGKILL)
        wait_until("another one", lambda: reporter_in(worker) not in (None, reporter), 20)
        for _ in range(10):
            worker.run("noop")
        everyone = inhabitants(worker.pid)
        wait_until("no zombie", lambda: "Z" not in inhabitants(worker.pid).values(), 10)
        worker.stop()
        assert not [pid for pid in everyone if Path(f"/proc/{pid}").exists()]
    assert measured(receiver.received) == {"noop": 20}
    assert exits(receiver.received) == {"killed": 1, "shutdown": 2}
    (event,) = losses(receiver.received)
    assert event.attributes["celery.task.id"] == lost.id
    # As the container counts.
    assert 1 < event.attributes["process.pid"] < 100


@needs_processes
def test_a_container_that_is_killed_as_a_whole_is_told_by_the_next_with_the_same_pids(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    directory = tmp_path / "state"
    environ = {"OTEL_CELERY_MEMORY_STATE_DIRECTORY": str(directory)}

    def written(task_id: str) -> bool:
        return any(task_id in path.read_text() for path in directory.glob("*.json"))

    with contained(start, arguments=["--concurrency=1"], environ=environ) as worker:
        worker.run("noop")
        result = worker.send("sleep", 60)
        wait_until("the task is written down", lambda: written(result.id), 15)
        everyone = inhabitants(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
        worker.server.process.wait(60)
        assert not [pid for pid in everyone if Path(f"/proc/{pid}").exists()]
    assert losses(receiver.received) == []

    with contained(start, arguments=["--concurrency=1"], environ=environ) as worker:
        wait_until("the losses are told", lambda: len(losses(receiver.received)) == 2, 15)
        worker.run("noop")
        worker.stop()
    of_main, of_child = (event.attributes for event in losses(receiver.received))
    assert (of_main["celery.worker.slot"], of_main["process.pid"]) == ("main", 1)
    assert (of_child["celery.worker.slot"], of_child["celery.task.id"]) == ("0", result.id)
    assert of_main["celery.worker.exit.recovered"] and of_child["celery.worker.exit.recovered"]
    assert list(directory.iterdir()) == []
