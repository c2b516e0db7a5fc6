"""How each process ended: a row of the table each, in a real worker, reported once and rightly."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from demo.receiver import Event, Receiver
from tests.processes import wait_until
from tests.worker.cgroup import MemoryCgroup, memory_cgroup
from tests.worker.harness import (
    CONTROLLED,
    Start,
    Worker,
    children_of,
    exits,
    losses,
    measured,
    wait_measured,
)

CELERY = str(Path(sys.executable).parent / "celery")
MIB = 1 << 20


def how(event: Event) -> tuple[Any, ...]:
    """Reason, signal and task of a loss."""
    return tuple(
        event.attributes.get(f"celery.{name}")
        for name in ("worker.exit.reason", "worker.exit.signal", "task.name", "task.id")
    )


def wait_lost(receiver: Receiver, count: int) -> None:
    wait_until("the loss is reported", lambda: len(losses(receiver.received)) >= count, 20)


def the_child(worker: Worker) -> int:
    """The pid of the one child, which may be about to come up."""
    (pid,) = wait_until("one child", lambda: _one(children_of(worker.pid)), 10)
    return pid


def _one(pids: list[int]) -> list[int]:
    return pids if len(pids) == 1 else []


def test_revoked_killed_idle_and_requeued_are_reported_with_signals_and_tasks(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        worker.run("noop")
        expected: list[tuple[Any, ...]] = []

        for number in (signal.SIGTERM, signal.SIGKILL):
            # Reported as killed from outside, idle. The child is up when its task has run; the
            # task's result is there a moment before its end.
            wait_measured(receiver.received, {"noop": len(expected) + 1})
            os.kill(the_child(worker), number)
            expected.append(("killed", number, None, None))
            wait_lost(receiver, len(expected))
            worker.run("noop")

        for name in ("SIGTERM", "SIGKILL"):
            result = worker.send("sleep", 30)
            wait_until(
                "the task runs",
                lambda: worker.client.control.inspect(timeout=0.5).query_task(result.id) or 0,  # noqa: B023
                10,
            )
            worker.client.control.revoke(result.id, terminate=True, signal=name)
            number = signal.Signals[name]
            expected.append(("terminated", number, "tests.worker.app.sleep", result.id))
            wait_lost(receiver, len(expected))
            worker.run("noop")

        requeued = worker.send("die_once", str(tmp_path / "marker"))
        assert requeued.get(timeout=30) == "well"
        expected.append(("killed", 9, "tests.worker.app.die_once", requeued.id))
        wait_lost(receiver, len(expected))
        worker.stop()
    assert [how(event) for event in losses(receiver.received)] == expected
    assert exits(receiver.received, slot="0") == {"killed": 3, "terminated": 2, "shutdown": 1}
    assert measured(receiver.received)["die_once"] == 1


def test_a_pool_that_shrinks_ends_its_children_orderly(start: Start, receiver: Receiver) -> None:
    environ = {"AUTOSCALE_KEEPALIVE": "1"}
    with start(arguments=["--autoscale=2,1"], environ=environ) as worker:
        sleeping = [worker.send("sleep", 2) for _ in range(3)]
        wait_until("the pool has grown", lambda: len(children_of(worker.pid)) == 2, 10)
        for result in sleeping:
            result.get(timeout=30)
        wait_until("the end is counted", lambda: "autoscale" in exits(receiver.received), 20)
        worker.run("noop")
        worker.stop()
    assert exits(receiver.received) == {"autoscale": 1, "shutdown": 1}
    assert losses(receiver.received) == []


def test_an_oom_kill_is_the_kernel_s_and_another_sigkill_is_not(
    start: Start, receiver: Receiver
) -> None:
    with memory_cgroup() as cgroup:
        if cgroup is None:
            # CI allows no skips: what follows from a count that rose is tested on frozen trees.
            warnings.warn("no memory cgroup can be made here: no real OOM kill", stacklevel=1)
            return
        _kill_for_want_of_memory(cgroup, start, receiver)


def _kill_for_want_of_memory(cgroup: MemoryCgroup, start: Start, receiver: Receiver) -> None:
    with start(arguments=["--concurrency=1"], prefix=cgroup.prefix(CELERY)) as worker:
        worker.run("noop")
        cgroup.limit(400 * MIB)
        victim = worker.send("grow", 20 * MIB, 50, 0.1)
        wait_lost(receiver, 1)
        other = worker.send("die", signal.SIGKILL)
        wait_lost(receiver, 2)
        worker.run("noop")
        worker.stop()
    first, second = losses(receiver.received)
    assert how(first) == ("oom_kill", 9, "tests.worker.app.grow", victim.id)
    assert how(second) == ("killed", 9, "tests.worker.app.die", other.id)
    kills = [e.attributes["celery.worker.cgroup.oom_kills"] for e in (first, second)]
    assert kills == [1, 1]
    assert first.attributes["celery.worker.process.rss"] > 100 * MIB
    assert exits(receiver.received, slot="0") == {"oom_kill": 1, "killed": 1, "shutdown": 1}


def test_cost_and_gain_of_recycling_are_exported(start: Start, receiver: Receiver) -> None:
    with start(arguments=["--concurrency=1", "--max-tasks-per-child=2"]) as worker:
        for _ in range(3):
            worker.run("keep", 50 * MIB)
            worker.run("noop")
        wait_until("three are replaced", lambda: _recycled(receiver, "gap")[0] == 3, 20)
        worker.stop()
    assert exits(receiver.received) == {"max_tasks": 3, "shutdown": 1}
    assert _of_children(receiver, "celery.worker.process.tasks") == (3, 6)
    count, lifetime_s = _of_children(receiver, "celery.worker.process.lifetime")
    gap_count, gap_s = _recycled(receiver, "gap")
    assert (count, gap_count) == (3, 3)
    assert gap_s > 0
    assert lifetime_s > 0
    count, freed_bytes = _recycled(receiver, "freed")
    assert count == 3
    assert 100 * MIB < freed_bytes < 300 * MIB


def _of_children(receiver: Receiver, name: str) -> tuple[int, float]:
    """Count and sum of those that were recycled."""
    points = [
        point
        for point in receiver.received.latest(name)
        if point.attributes["celery.worker.exit.reason"] == "max_tasks"
    ]
    return sum(point.count for point in points), sum(point.value for point in points)


def _recycled(receiver: Receiver, name: str) -> tuple[int, float]:
    return _of_children(receiver, f"celery.worker.recycling.{name}")
