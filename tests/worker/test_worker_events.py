"""Events for consumers of Celery's own, as the real `celery events` receives them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.processes import Server, running, wait_until
from tests.worker.harness import Broker, Start

EVENTS_ON = {"OTEL_CELERY_MEMORY_WORKER_EVENT_INTERVAL": "1"}


@contextmanager
def celery_events(broker: Broker, directory: Path) -> Iterator[Server]:
    """`celery events --dump`, which prints every event."""
    command = [
        *(sys.executable, "-m", "celery", f"--broker={broker.url}", "events", "--dump"),
    ]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with running("events", command, directory, environ) as server:
        yield server


def test_celery_events_is_told_the_memory_of_a_worker(
    start: Start, broker: Broker, tmp_path: Path
) -> None:
    with (
        celery_events(broker, tmp_path) as events,
        start(arguments=["--concurrency=1"], environ=EVENTS_ON) as worker,
    ):
        worker.run("noop")

        pids = [worker.pid, *(each.pid for each in psutil.Process(worker.pid).children())]
        assert len(pids) == 2

        def told() -> list[str]:
            lines = events.log.read_text(errors="replace").splitlines()
            mine = [line for line in lines if line.startswith(f"{worker.node} ")]
            return [line for line in mine if "memory" in line and "processes=2" in line]

        line = wait_until("an event with the memory of both processes", told, 60)[-1]
        fields = dict(part.split("=", 1) for part in line.partition(": ")[2].split(", "))
        seen = sum(psutil.Process(pid).memory_info().rss for pid in pids)
        assert 0.5 * seen < int(fields["rss"]) < 3 * seen
        assert fields["verdicts"] == "[]"
