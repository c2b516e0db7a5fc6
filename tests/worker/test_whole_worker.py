"""A worker killed as a whole is reported by its reporter, or by the next start of the node."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import (
    Start,
    Worker,
    children_of,
    losses,
    measured,
    reporters_of,
    wait_answered,
    wait_measured,
    wait_restarted,
)


def in_task(worker: Worker, directory: Path, **options: Any) -> Any:
    """A task that has begun and is in the worker's file."""
    result = worker.send("sleep", 60, **options)
    wait_until("the task is written down", lambda: result.id in _text(directory), 15)
    return result


def _text(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.glob("*.json"))


def test_killed_with_its_reporter_it_is_reported_by_the_next_start_of_the_node(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    directory = tmp_path / "state"
    environ = {"OTEL_CELERY_MEMORY_STATE_DIRECTORY": str(directory)}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        # The message that runs has killed before, as if it were delivered again.
        worker.send("die", signal.SIGKILL, task_id="one and the same")
        wait_until("it has killed", lambda: len(losses(receiver.received)) == 1, 20)
        worker.run("noop")
        wait_until("it is forgotten", lambda: "one and" not in _text(directory), 15)
        result = in_task(worker, directory, task_id="one and the same")
        (child,) = children_of(worker.pid)
        # The reporter first, so that nothing can report the kill, nor start another reporter.
        os.kill(worker.pid, signal.SIGSTOP)
        for pid in (*reporters_of(worker.pid), worker.pid, child):
            os.kill(pid, signal.SIGKILL)
        worker.server.process.wait(60)
        main = worker.pid
    assert len(losses(receiver.received)) == 1
    assert result.id in _text(directory)

    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        wait_until("the losses are reported", lambda: len(losses(receiver.received)) == 3, 15)
        worker.stop()
    of_main, of_child = (dict(event.attributes) for event in losses(receiver.received)[1:])
    assert (of_main["celery.worker.slot"], of_main["process.pid"]) == ("main", main)
    assert of_child.pop("celery.task.age") >= 0
    for size in ("worker.process.rss", "worker.process.rss_peak", "task.memory.rss.start"):
        assert of_child.pop(f"celery.{size}") > 10 << 20
    assert 0 <= of_child.pop("celery.task.memory.rss.peak") < 10 << 20
    # OOM kills of other processes, if the machine counts them.
    of_child.pop("celery.worker.cgroup.oom_kills", 0)
    assert of_child == {
        "celery.worker.slot": "0",
        "process.pid": child,
        "celery.worker.exit.reason": "killed",
        "celery.worker.exit.recovered": True,
        "celery.worker.exit.repeated": 2,
        "celery.task.name": "tests.worker.app.sleep",
        "celery.task.id": result.id,
    }
    # The second worker ended orderly: there is nothing to recover.
    assert list(directory.iterdir()) == []


def test_a_reporter_that_survives_reports_all_and_leaves_nothing_to_recover(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    directory = tmp_path / "state"
    environ = {"OTEL_CELERY_MEMORY_STATE_DIRECTORY": str(directory)}
    with start(arguments=["--concurrency=2"], environ=environ) as worker:
        for _ in range(10):
            worker.run("noop")
        wait_measured(receiver.received, {"noop": 10})
        result = in_task(worker, directory)
        os.kill(worker.pid, signal.SIGKILL)
        worker.server.process.wait(60)
        wait_until("the reporter has ended", lambda: not reporters_of(worker.pid), 15)
    assert measured(receiver.received) == {"noop": 10}
    reported = [e.attributes for e in losses(receiver.received)]
    assert {(each["celery.worker.slot"], each.get("celery.task.id")) for each in reported} >= {
        ("main", None)
    }
    assert {each["celery.worker.slot"] for each in reported} == {"main", "0", "1"}
    assert [each["celery.task.id"] for each in reported if "celery.task.id" in each] == [result.id]
    assert not any("celery.worker.exit.recovered" in each for each in reported)
    assert list(directory.iterdir()) == []


def test_a_state_directory_that_cannot_be_written_to_harms_nothing(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text(json.dumps({}))
    environ = {"OTEL_CELERY_MEMORY_STATE_DIRECTORY": str(tmp_path / "file" / "state")}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        worker.run("noop")
        wait_until("it is said", lambda: "the state cannot be saved" in worker.log(), 15)
        worker.stop()
    assert measured(receiver.received) == {"noop": 1}
    assert worker.log().count("the state cannot be saved") == 1


def test_a_task_whose_start_only_a_dead_reporter_read_is_named_all_the_same(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        worker.run("noop")
        result = worker.send("sleep", 60)
        # Its start has been read when the noop before it has been exported.
        wait_measured(receiver.received, {"noop": 1})
        wait_until("the task has come", lambda: f"sleep[{result.id}] received" in worker.log(), 10)
        reporter = worker.reporter()
        assert reporter is not None
        # And the task's own with the next.
        wait_answered(receiver.received)
        began_s = time.monotonic()
        os.kill(reporter, signal.SIGKILL)
        wait_restarted(worker, reporter, receiver.received)
        (child,) = children_of(worker.pid)
        # Its first reading of the processes: resync has been read.
        wait_answered(receiver.received)
        age_s = time.monotonic() - began_s
        os.kill(child, signal.SIGKILL)
        wait_until("the loss is reported", lambda: losses(receiver.received), 20)
        os.kill(worker.pid, signal.SIGKILL)
        worker.server.process.wait(60)
        wait_until("the reporter has ended", lambda: not reporters_of(worker.pid), 15)
    event = losses(receiver.received)[0]
    assert event.attributes["celery.task.id"] == result.id
    assert event.attributes["celery.task.name"] == "tests.worker.app.sleep"
    assert event.attributes["celery.task.age"] >= age_s
    assert event.attributes["celery.worker.slot"] == "0"
    # The control page has the task of its child.
    assert event.attributes["celery.task.memory.rss.start"] > 1 << 20
