"""How each process ended: a row of the table each, in a real worker, reported once and rightly."""

from __future__ import annotations

import os
import re
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
    Broker,
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


def code(event: Event) -> Any:
    """The exit code of a loss, ``None`` after a signal."""
    return event.attributes.get("celery.worker.exit.code")


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
        assert requeued.get(timeout=300) == "well"
        expected.append(("killed", 9, "tests.worker.app.die_once", requeued.id))
        wait_lost(receiver, len(expected))
        worker.stop()
    assert [how(event) for event in losses(receiver.received)] == expected
    assert [code(event) for event in losses(receiver.received)] == [None] * 5
    assert exits(receiver.received, slot="0") == {"killed": 3, "terminated": 2, "shutdown": 1}
    assert measured(receiver.received)["die_once"] == 1


def test_a_process_that_its_task_ends_has_exited_whatever_the_code(
    start: Start, receiver: Receiver
) -> None:
    ways: list[tuple[str, Any, int]] = [
        ("leave", 0, 0),
        ("leave", 3, 3),
        ("leave", -1, 255),
        ("leave", "with a text", 1),
        ("leave", 155, 155),
        # billiard has its own ``sys.exit``, and knows of no code that does not pass there.
        ("leave_by_exception", 3, 0),
        ("leave_at_once", 0, 0),
        ("leave_at_once", 3, 3),
        # The codes of recycling and of a crash.
        ("leave_at_once", 155, 155),
        ("leave_at_once", 1, 1),
    ]
    expected = []
    with start(arguments=["--concurrency=1"], environ={"TEST_LOST_WAIT_S": "0.1"}) as worker:
        for task, given, seen in ways:
            worker.run("noop")
            left = worker.send(task, given)
            expected.append(("exited", None, f"tests.worker.app.{task}", left.id, seen))
            wait_lost(receiver, len(expected))
        worker.run("noop")
        worker.stop()
    assert [(*how(event), code(event)) for event in losses(receiver.received)] == expected
    assert exits(receiver.received, slot="0") == {"exited": len(ways), "shutdown": 1}
    lines = [line for line in worker.log().splitlines() if "was lost in" in line]
    assert len(lines) == len(ways)
    assert all("otel_celery_memory: worker process 0" in line for line in lines)


def test_thirty_deaths_by_one_message_are_thirty_events_and_one_line_that_says_thirty(
    start: Start, receiver: Receiver, broker: Broker, tmp_path: Path
) -> None:
    environ = {**CONTROLLED, "TEST_LOST_WAIT_S": "0.1"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        other = worker.send("leave_at_once", 3)
        wait_lost(receiver, 1)
        result = worker.send("poison", str(tmp_path / "poison"), 30, 0)
        assert result.get(timeout=240) == "well"
        wait_lost(receiver, 31)
        wanted = [(result.id, 30), (other.id, 1)]
        text = wait_until("a row for each message", lambda: _text_with(worker, wanted), 30)
        worker.stop()
    (row,) = [line for line in text.splitlines() if result.id in line]
    assert re.search(r" killed, signal 9 .* 30 +tests\.worker\.app\.poison ", row)
    events = [e.attributes for e in losses(receiver.received)][1:]
    assert {(e["celery.task.id"], e["celery.worker.exit.reason"]) for e in events} == {
        (result.id, "killed")
    }
    assert [e["celery.worker.exit.repeated"] for e in events] == [*range(1, 31)]
    (repeated,) = receiver.received.latest("celery.worker.process.exits.repeated")
    assert repeated.attributes["celery.task.name"] == "tests.worker.app.poison"
    assert repeated.value == 29
    lines = [
        line for line in worker.log().splitlines() if "was lost in" in line and result.id in line
    ]
    thirty = [line for line in lines if "has killed 30 processes" in line]
    assert len(thirty) == 1
    assert thirty == lines[-1:]
    # One line for the first, one a minute meanwhile, one at the end.
    assert len(lines) <= 6
    # Redis and RabbitMQ say so of what was put back; files do not.
    said = [e["celery.task.redelivered"] for e in events[1:] if "celery.task.redelivered" in e]
    # Where Celery has dropped the request before the main process looks, it is not known.
    assert len(said) == 0 if broker.url.startswith("filesystem") else len(said) > 20
    assert set(said) <= {True}
    assert "celery.task.redelivered" not in events[0]


def _text_with(worker: Worker, wanted: list[tuple[str, int]]) -> str:
    """What `inspect memory` says, once its losses are of these messages, so often each."""
    answer = worker.command("memory")
    rows = answer.get("memory", {}).get("losses", [])
    shown = [(row["task_id"], row["times"]) for row in rows]
    return answer["ok"] if shown == wanted else ""


def test_what_a_run_took_before_it_died_is_told_as_far_as_it_was_seen(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    with start(arguments=["--concurrency=1"]) as worker:
        worker.run("free", 300 * MIB)
        lost = worker.send("poison", str(tmp_path / "poison"), 1, 100 * MIB)
        wait_lost(receiver, 1)
        worker.stop()
    (event,) = losses(receiver.received)
    assert how(event) == ("killed", 9, "tests.worker.app.poison", lost.id)
    assert 99 * MIB < event.attributes["celery.task.memory.rss.peak"] < 130 * MIB
    (line,) = [each for each in worker.log().splitlines() if "was lost in" in each]
    assert "its run was seen to take 1" in line


def test_a_pool_that_shrinks_ends_its_children_orderly(start: Start, receiver: Receiver) -> None:
    environ = {"AUTOSCALE_KEEPALIVE": "1"}
    with start(arguments=["--autoscale=2,1"], environ=environ) as worker:
        sleeping = [worker.send("sleep", 2) for _ in range(3)]
        wait_until("the pool has grown", lambda: len(children_of(worker.pid)) == 2, 10)
        for result in sleeping:
            result.get(timeout=300)
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
    assert [code(event) for event in (first, second)] == [None, None]
    assert first.attributes["celery.task.memory.rss.peak"] > 100 * MIB
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
