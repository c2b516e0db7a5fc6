"""Starts real workers, sends them tasks, and finds what the receiver got."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from celery import Celery

from demo.receiver import Event, Received
from tests.processes import POLL_S, Server, running, wait_until

ROOT = Path(__file__).resolve().parents[2]
CONTROLLED = {"TEST_REMOTE_CONTROL": "1"}
"""For a worker that is to answer remote commands."""
_READ_WITHIN_S = 3.0
_ENDED = re.compile(r"\] (?:succeeded|raised|retry|ignored|rejected)|handler raised|revoked task")


@dataclass(frozen=True)
class Broker:
    """Where tasks and results go, as the test app's environment wants it."""

    url: str
    backend: str
    transport_options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def redis(cls, url: str) -> Broker:
        """Database 0 of a Redis for tasks, 1 for results."""
        return cls(url, url.removesuffix("/0") + "/1")

    def environ(self) -> dict[str, str]:
        """The variables that `tests.worker.app` reads."""
        return {
            "TEST_BROKER": self.url,
            "TEST_BACKEND": self.backend,
            "TEST_TRANSPORT_OPTIONS": json.dumps(self.transport_options),
        }

    def client(self) -> Celery:
        """An app that sends tasks and is not instrumented."""
        app = Celery("client", broker=self.url, backend=self.backend, set_as_current=False)
        app.conf.broker_transport_options = dict(self.transport_options)
        # A result that is thrown away after its Redis has gone must not be waited for.
        app.conf.result_backend_transport_options = {
            "retry_policy": {"max_retries": 2, "interval_step": 0.1, "interval_max": 0.1}
        }
        return app


@dataclass(frozen=True)
class Worker:
    """A running worker and the client to send it tasks."""

    server: Server
    client: Celery
    node: str
    queue: str
    main_pid: int | None = None
    """The main process, where what was started is not it but its parent."""

    @property
    def pid(self) -> int:
        """The main process."""
        return self.main_pid or self.server.process.pid

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        """Send a task of `tests.worker.app` to this worker."""
        return self.client.send_task(f"tests.worker.app.{task}", args, queue=self.queue, **options)

    def run(self, task: str, *args: Any, timeout_s: float = 60, **options: Any) -> Any:
        """Send a task and wait for its result."""
        return self.send(task, *args, **options).get(timeout=timeout_s)

    def stop(self, timeout_s: float = 90) -> float:
        """Warm shutdown, once its main process has read of the ends of its tasks; seconds it took.

        Some 30 where it is asked to before it has read that a task has begun, whose result can be
        had by then: billiard's child waits so long for the main process to read it
        (``GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT``). Tasks that still run are not waited for.
        """
        until_s = time.monotonic() + _READ_WITHIN_S
        while not self._has_read_all() and time.monotonic() < until_s:
            time.sleep(POLL_S)
        began_s = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        self.server.process.wait(timeout_s)
        return time.monotonic() - began_s

    def remote(self, *words: str, broker: Broker) -> tuple[str, dict[str, Any]]:
        """What Celery's command line says to a remote command: as text, and this node's answer."""
        group, *rest = words
        outputs = []
        for options in ([], ["--json"]):
            command = [
                *(sys.executable, "-m", "celery", "--app=tests.worker.app", group),
                *("--timeout=10", f"--destination={self.node}", *options, *rest),
            ]
            environ = worker_environ(broker, "http://127.0.0.1:9", CONTROLLED)
            done = subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=300, check=False
            )
            outputs.append(done.stdout)
            if group == "control":
                return outputs[0], {}
        return outputs[0], json.loads(outputs[1])[self.node]

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        """This node's answer to a remote command; unlike `remote`, starts no program of Celery's.

        That program costs as much as a worker; one test a command shows that it works.
        """
        control = self.client.control
        # A worker says that it is ready before it listens, and what came before is lost.
        wait_until("it listens", lambda: control.ping([self.node], timeout=2), 60)
        (answer,) = control.broadcast(
            name, arguments, destination=[self.node], reply=True, timeout=10, limit=1
        )
        own: dict[str, Any] = answer[self.node]
        return own

    def _has_read_all(self) -> bool:
        log = self.log()
        return log.count("] received") <= len(_ENDED.findall(log))

    def log(self) -> str:
        """All it said."""
        return self.server.log.read_text(errors="replace")

    def signal_children(self, name: str) -> None:
        """Send a signal to each child of the pool."""
        for pid in children_of(self.pid):
            os.kill(pid, signal.Signals[name])

    def wait_accepted(self, task: str, count: int = 1) -> None:
        """Until its main process has read that this many runs of ``task`` have begun.

        The worker wants `CONTROLLED`. By name, as a run whose result is there may still be active.

        A worker asked to stop before it has read that throws the job away: it gives the message
        back to the broker though a child runs the task, and waits 30 s for that child, whose
        result nobody reads (``AsynPool.flush``, Celery 5.7.0; `stop`).
        """

        def active() -> int:
            asked = self.client.control.inspect(destination=[self.node], timeout=1)
            running = (asked.active() or {}).get(self.node, ())
            return sum(each["name"] == f"tests.worker.app.{task}" for each in running)

        wait_until(f"{count} runs of {task}", lambda: active() == count, 20)

    def wait_ended(self) -> None:
        """Wait until its children have said that each task has ended, and are idle.

        A child says so, and sends the result, before the end is measured: until it sleeps again it
        may be anywhere between the two, for as long as a busy machine has it wait for a core.
        """
        wait_until("all tasks have ended", self._has_read_all, 60)
        wait_until("its children are idle", self._children_sleep, 60)

    def _children_sleep(self) -> bool:
        return all(
            psutil.Process(pid).status() == psutil.STATUS_SLEEPING for pid in children_of(self.pid)
        )

    def in_task(self, name: str) -> bool:
        """Whether a task that leaves a marker has begun."""
        return (self.server.log.parent / name).exists()

    def reporter(self) -> int | None:
        """The pid of its reporter."""
        return next(iter(reporters_of(self.pid)), None)


Start = Callable[..., AbstractContextManager[Worker]]
"""The fixture ``start``: `running_worker` on the test's broker and receiver."""


@contextmanager
def running_worker(
    broker: Broker,
    directory: Path,
    endpoint: str,
    *,
    arguments: Sequence[str] = ("--concurrency=2",),
    environ: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    name: str = "w",
    app: str = "tests.worker.app",
) -> Iterator[Worker]:
    """A real ``celery worker`` until the context ends; ready when this returns."""
    node = f"{name}@test"
    queue = f"{name}-{os.getpid()}-{time.monotonic_ns()}"
    command = [
        *(prefix or (str(Path(sys.executable).parent / "celery"),)),
        f"--app={app}",
        "worker",
        f"--hostname={node}",
        f"--queues={queue}",
        "--loglevel=INFO",
        "--without-mingle",
        "--without-gossip",
        *arguments,
    ]
    given = {"TEST_MARKERS": str(directory), **worker_environ(broker, endpoint, environ)}
    with running(name, command, directory, given) as server:
        server.wait_ready(lambda: f"{node} ready" in server.log.read_text(errors="replace"))
        yield Worker(server, broker.client(), node, queue)


def worker_environ(
    broker: Broker, endpoint: str, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """This process's environment, less its OpenTelemetry, plus what a test worker needs."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    return {
        **kept,
        **broker.environ(),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_SERVICE_NAME": "tests",
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "0.5",
        "OTEL_CELERY_MEMORY_WARM_UP": "0",
        **(environ or {}),
    }


def reporters_of(main_pid: int) -> list[int]:
    """Pids of reporters whose worker is `main_pid`, from their command lines."""
    wanted = f"--main-pid={main_pid}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in words and b"otel_celery_memory.reporter" in words:
            found.append(int(directory.name))
    return found


def children_of(pid: int) -> list[int]:
    """Pids of a process's children, less its reporter."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(word) for word in listed.split() if int(word) not in reporters_of(pid)]


def losses(received: Received) -> list[Event]:
    """The events of lost processes so far."""
    return [e for e in list(received.events) if e.name == "celery.worker.process_lost"]


def measured(received: Received) -> dict[str, int]:
    """Tasks measured by short name, over all states, workers and reporters."""
    counts: dict[str, int] = {}
    for point in received.latest("celery.task.memory.measured"):
        task = point.attributes["celery.task.name"].rpartition(".")[2]
        counts[task] = counts.get(task, 0) + int(point.value)
    return counts


def exits(
    received: Received, *, slot: str | None = None, instance: str | None = None
) -> dict[str, int]:
    """Ends of children by reason, of one slot or all, of one worker or all."""
    found: dict[str, int] = {}
    for point in received.latest("celery.worker.process.exits"):
        of_slot = point.attributes["celery.worker.slot"]
        of_instance = point.resource["service.instance.id"]
        if of_slot == "main" or slot not in (None, of_slot) or instance not in (None, of_instance):
            continue
        reason = point.attributes["celery.worker.exit.reason"]
        found[reason] = found.get(reason, 0) + int(point.value)
    return found


def wait_restarted(worker: Worker, former: int, received: Received, timeout_s: float = 60) -> int:
    """The pid of the reporter that took the place of ``former``, once its start is counted."""

    def successor() -> int | None:
        pid = worker.reporter()
        counted = received.latest("celery.memory.reporter.restarts")
        return pid if pid != former and any(point.value > 0 for point in counted) else None

    found = wait_until(f"a reporter in the place of {former} is counted", successor, timeout_s)
    assert found is not None
    return found


def wait_measured(received: Received, wanted: Mapping[str, int], timeout_s: float = 30) -> None:
    """Return once the receiver has counted what is wanted, of each task."""
    wait_until(
        f"measured {dict(wanted)}",
        lambda: all(measured(received).get(task, 0) >= count for task, count in wanted.items()),
        timeout_s,
    )


def wait_answered(received: Received, timeout_s: float = 10) -> None:
    """Return once the reporter has surely noted what was taken from it until now.

    What the receiver has is noted when its answer has come; the next export comes after that. A
    reporter that is killed between the two leaves its successor to tell the same once more.
    """

    def exports() -> int:
        counted = "celery.memory.reporter.restarts"
        return sum(point.metric == counted for point in list(received.points))

    before = exports()
    wait_until("another export", lambda: exports() > before, timeout_s)
