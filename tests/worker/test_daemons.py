"""Workers without a terminal: ``celery multi`` and ``--detach``; nothing of theirs stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import (
    Broker,
    children_of,
    exits,
    losses,
    measured,
    reporters_of,
    wait_measured,
    worker_environ,
)

REPORTER_LINE = re.compile(r"/memory reporter\]")


@dataclass(frozen=True)
class Daemon:
    """A worker without a parent process: known by its files."""

    name: str
    directory: Path
    client: Celery

    @property
    def pid(self) -> int:
        """The main process, as its pid file says."""
        return int((self.directory / f"{self.name}.pid").read_text())

    def log(self) -> str:
        """All it said."""
        path = self.directory / f"{self.name}.log"
        return path.read_text() if path.exists() else ""

    def run(self, task: str, *args: Any) -> Any:
        """Send it a task and wait for the result."""
        sent = self.client.send_task(f"tests.worker.app.{task}", args, queue=self.queue)
        return sent.get(timeout=300)

    @property
    def queue(self) -> str:
        """Its own, as other tests' workers use the same broker."""
        return f"{self.name}-{self.directory.name}"

    def options(self) -> list[str]:
        """The common arguments of `celery worker` and `celery multi`."""
        return [
            f"--queues={self.queue}",
            f"--pidfile={self.directory}/%n.pid",
            f"--logfile={self.directory}/%n.log",
            *("--loglevel=INFO", "--concurrency=2", "--without-mingle", "--without-gossip"),
        ]


def celery(words: Sequence[str], directory: Path, environ: dict[str, str]) -> None:
    """Run Celery's command line to its end."""
    command = [sys.executable, "-m", "celery", "--app=tests.worker.app", *words]
    subprocess.run(
        command, cwd=directory, env=environ, check=True, timeout=300, stdout=subprocess.DEVNULL
    )


@contextmanager
def started(words: Sequence[str], daemon: Daemon, environ: dict[str, str]) -> Iterator[None]:
    """A daemon that is up; whatever is left of it at the end is killed, and fails the test."""
    celery([*words, *daemon.options()], daemon.directory, environ)
    wait_until("the daemon is ready", lambda: f"{daemon.name}@test ready" in daemon.log(), 30)
    main = daemon.pid
    everyone = [main, *children_of(main), *reporters_of(main)]
    try:
        yield
        wait_until("all its processes are gone", lambda: not left(everyone), 30)
    finally:
        for pid in left(everyone):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def left(pids: Sequence[int]) -> list[int]:
    """Those that are still there, less the zombies of whoever adopted them."""

    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
        except OSError:
            return "Z"

    return [pid for pid in pids if state(pid) != "Z"]


@pytest.fixture
def daemon(broker: Broker, tmp_path: Path) -> Daemon:
    return Daemon("d", tmp_path, broker.client())


def test_workers_of_celery_multi_are_measured_and_leave_nothing(
    broker: Broker, receiver: Receiver, daemon: Daemon
) -> None:
    environ = worker_environ(broker, receiver.endpoint)
    with started(["multi", "start", "d@test"], daemon, environ):
        for _ in range(10):
            daemon.run("noop")
        wait_measured(receiver.received, {"noop": 10})
        (reporter,) = reporters_of(daemon.pid)
        celery(["multi", "stop", "d@test", *daemon.options()], daemon.directory, environ)
        wait_until("the reporter has ended", lambda: not left([reporter]), 30)
    assert measured(receiver.received) == {"noop": 10}
    assert exits(receiver.received) == {"shutdown": 2}
    assert losses(receiver.received) == []
    assert {p.resource["service.instance.id"] for p in receiver.received.points} == {"d@test"}
    assert not (daemon.directory / "d.pid").exists()


def test_a_detached_worker_is_measured_and_what_its_reporter_has_to_say_is_in_its_log(
    broker: Broker, receiver: Receiver, daemon: Daemon
) -> None:
    environ = worker_environ(broker, receiver.endpoint)
    receiver.status = 503
    with started(["worker", "--detach", "--hostname=d@test"], daemon, environ):
        for _ in range(10):
            daemon.run("noop")
        wait_until("it is said", lambda: REPORTER_LINE.search(daemon.log()), 20)
        receiver.status = 200
        os.kill(children_of(daemon.pid)[0], signal.SIGKILL)
        wait_until("the loss is counted", lambda: "killed" in exits(receiver.received), 20)
        os.kill(daemon.pid, signal.SIGTERM)
    assert measured(receiver.received) == {"noop": 10}
    assert exits(receiver.received) == {"killed": 1, "shutdown": 2}
    lines = [line for line in daemon.log().splitlines() if REPORTER_LINE.search(line)]
    assert len(lines) == 2, daemon.log()
    assert "was lost with no task: killed (signal 9), RSS last seen" in lines[1]
