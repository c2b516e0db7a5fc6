"""Pressure is reported at once, before a process dies of the limit."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demo.receiver import Event, Receiver
from tests.processes import wait_until
from tests.worker.cgroup import memory_cgroup
from tests.worker.harness import Start, losses, reporters_of

CELERY = str(Path(sys.executable).parent / "celery")
MIB = 1 << 20
NOT_BY_ITSELF = {"OTEL_BLRP_SCHEDULE_DELAY": "600000"}
"""The SDK would send events after ten minutes: what comes was sent at once."""


def pressures(receiver: Receiver) -> list[Event]:
    return [e for e in list(receiver.received.events) if e.name == "celery.memory.pressure"]


def attributes_of(event: Event) -> dict[str, Any]:
    """What it says, less what differs from run to run."""
    attributes = {**event.attributes}
    limit, used = (attributes.pop(f"celery.memory.limit.{name}") for name in ("size", "used"))
    assert 0.9 * limit <= used
    for name in ("worker.process.rss", "worker.process.rss_peak", "task.memory.rss.start"):
        assert attributes.pop(f"celery.{name}") > 10 * MIB
    assert attributes.pop("celery.task.age") >= 0
    attributes.pop("process.pid")
    return attributes


def limits(receiver: Receiver) -> dict[str, float]:
    """The limits that are exported, in bytes by kind."""
    return {
        point.attributes["celery.memory.limit.kind"]: point.value
        for point in receiver.received.latest("celery.worker.memory.limit")
    }


@pytest.mark.parametrize(
    ("kind", "limit_kib", "arguments", "prefix"),
    [
        ("max_memory_per_child", 240_000, ["--max-memory-per-child=240000"], []),
        ("rlimit_data", 300_000, [], ["/bin/sh", "-c", 'ulimit -d 300000; exec "$0" "$@"', CELERY]),
        ("rlimit_as", 600_000, [], ["/bin/sh", "-c", 'ulimit -v 600000; exec "$0" "$@"', CELERY]),
    ],
)
def test_a_process_near_its_own_limit_is_reported_with_its_task_while_it_runs(
    start: Start,
    receiver: Receiver,
    kind: str,
    limit_kib: int,
    arguments: Sequence[str],
    prefix: Sequence[str],
) -> None:
    arguments = ["--concurrency=1", *arguments]
    with start(arguments=arguments, prefix=prefix, environ=NOT_BY_ITSELF) as worker:
        result = worker.send("grow", 5 * MIB, 110, 0.05)
        wait_until("the pressure is reported", lambda: pressures(receiver), 20)
        assert not result.ready()
        # Of a process that has ended, none is exported any more.
        wait_until("its limit is exported", lambda: kind in limits(receiver), 20)
        assert limits(receiver)[kind] == limit_kib * 1024
        # What Celery does with a MemoryError is not asked here.
        os.kill(worker.pid, signal.SIGKILL)
        worker.server.process.wait(60)
        wait_until("the reporter has ended", lambda: not reporters_of(worker.pid), 15)
    (event,) = pressures(receiver)
    assert event.severity == "WARN"
    (line,) = [each for each in worker.log().splitlines() if f" of {kind} are used;" in each]
    assert f"otel_celery_memory: {event.body}; not repeated for 10 minutes" in line
    assert attributes_of(event) == {
        "celery.memory.limit.kind": kind,
        "celery.worker.slot": "0",
        "celery.task.name": "tests.worker.app.grow",
        "celery.task.id": result.id,
    }


def test_a_container_near_its_limit_is_reported_before_the_kernel_kills_a_process(
    start: Start, receiver: Receiver
) -> None:
    with memory_cgroup() as cgroup:
        if cgroup is None:
            # CI allows no skips: what follows from a cgroup's files is tested on frozen trees.
            warnings.warn("no memory cgroup can be made here: no real pressure", stacklevel=1)
            return
        cgroup.limit(400 * MIB)
        options: dict[str, Any] = {"prefix": cgroup.prefix(CELERY), "environ": NOT_BY_ITSELF}
        with start(arguments=["--concurrency=1"], **options) as worker:
            result = worker.send("grow", 10 * MIB, 100, 0.1)
            wait_until("the pressure is reported", lambda: len(pressures(receiver)) >= 2, 20)
            wait_until("the kill is noticed", lambda: "SIGKILL" in worker.log(), 20)
            worker.stop()
    assert limits(receiver)["cgroup"] == 400 * MIB
    (charged,) = receiver.received.latest("celery.worker.memory.cgroup")
    assert 0 < charged.value <= 400 * MIB
    child, main = pressures(receiver)
    assert attributes_of(child) == {
        "celery.memory.limit.kind": "cgroup",
        "celery.worker.slot": "0",
        "celery.task.name": "tests.worker.app.grow",
        "celery.task.id": result.id,
    }
    assert main.attributes["celery.worker.slot"] == "main"
    (lost,) = losses(receiver.received)
    assert lost.attributes["celery.worker.exit.reason"] == "oom_kill"
    assert lost.attributes["celery.worker.process.rss"] > 200 * MIB
    assert child.time_ns < lost.time_ns
