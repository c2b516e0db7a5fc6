"""Runs one case in a real worker, at its rates, and brings back what was shown and what is true."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from celery import Celery

from demo.receiver import Received, Receiver
from tests.processes import Server, running, wait_until
from tests.redis_server import running_redis
from tests.truth.case import Shape
from tests.truth.conclusions import Seen
from tests.worker.harness import Broker, worker_environ

T = TypeVar("T")
Until = Callable[[Received], bool]
"""Whether what was received is enough, so that a case may end before its time."""
_TICK_S = 0.1
_LOOK_S = 2.0
_BACKLOG_S = 2.0
"""No more messages wait than the rates send in this time: a busy machine is given fewer."""
_ARGSREPR_MAX = 1_024
"""As Celery cuts it."""
_TMPFS = Path("/dev/shm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class _Running:
    server: Server
    client: Celery
    node: str
    queue: str

    def rss_bytes(self) -> int:
        """RSS of the processes that run tasks, together."""
        main = self.server.process.pid
        return sum(map(_rss_bytes, _children(main) or [main]))

    def command(self, name: str, **arguments: str) -> dict[str, Any]:
        """The answer to a remote command, with its text as ``ok``."""
        (answer,) = self.client.control.broadcast(
            name, arguments, destination=[self.node], reply=True, timeout=20, limit=1
        )
        own: dict[str, Any] = answer[self.node]
        return own


def run_cases(
    chosen: Sequence[Shape],
    directory: Path,
    conclude: Callable[[Shape, Seen], T],
    together: int,
    enough: Callable[[Shape, Received], bool] = lambda shape, received: False,
) -> list[T | str]:
    """What ``conclude`` makes of each case, so many at a time; of one that broke, why.

    All over one Redis, with files in ``directory``. A case ends early when ``enough`` says so.
    """

    def run(numbered: tuple[int, Shape]) -> T | str:
        number, shape = numbered
        own = directory / str(number)
        own.mkdir()
        try:
            seen = run_case(shape, Broker.redis(url), own, partial(enough, shape))
            return conclude(shape, seen)
        except Exception as error:  # the others go on
            return f"{shape.case.name}: {type(error).__name__}: {error}"

    with running_redis(directory) as url, ThreadPoolExecutor(together) as threads:
        return list(threads.map(run, enumerate(chosen)))


def run_case(
    shape: Shape,
    broker: Broker,
    directory: Path,
    enough: Until = lambda received: False,
    environ: Mapping[str, str] | None = None,
) -> Seen:
    """Sends the case's tasks until as many have run as its rates and seconds want, or enough.

    ``environ`` is for the worker, beside what it has anyway.
    """
    with (
        Receiver() as receiver,
        _worker(shape, broker, directory, receiver.endpoint, environ or {}) as worker,
    ):
        began_ns, began_s = time.time_ns(), time.monotonic()
        sizes: list[tuple[float, int]] = []
        runs = _send(shape, worker, sizes, partial(enough, receiver.received))
        # An answer is at most five seconds old.
        time.sleep(6)
        answer = worker.command("memory")
        ended_ns, seconds = time.time_ns(), time.monotonic() - began_s
        os.kill(worker.server.process.pid, signal.SIGTERM)
        worker.server.process.wait(120)
        received = receiver.received
        return Seen(
            str(answer.get("ok", "")),
            tuple(received.points),
            tuple(received.events),
            runs,
            seconds,
            began_ns,
            ended_ns,
            tuple(sizes),
            worker.server.log.read_text(errors="replace"),
            tuple(answer.get("verdicts") or ()),
        )


def _send(
    shape: Shape, worker: _Running, sizes: list[tuple[float, int]], enough: Callable[[], bool]
) -> dict[str, int]:
    """Sends at the rates; the case's clock stands still while the worker is behind."""
    case, rates = shape.case, shape.all_rates
    arguments = {shape.full_name(task): of for task, of in case.arguments.items()}
    at_most = {shape.full_name(task): count for task, count in case.at_most.items()}
    options = {shape.full_name(task): given for task, given in case.options.items()}
    census_due_s = case.seconds / 2 if case.census else float("inf")
    sent = dict.fromkeys(rates, 0)
    most_waiting = sum(rates.values()) * _BACKLOG_S
    passed_s, last_s, look_s = 0.0, time.monotonic(), 0.0
    with worker.client.connection_for_write() as connection:
        redis = connection.default_channel.client
        patterns = {
            task: _pattern(task, worker, connection, options.get(task, {})) for task in rates
        }
        while passed_s < case.seconds and not enough():
            now_s = time.monotonic()
            if now_s >= look_s:
                look_s = now_s + _LOOK_S
                sizes.append((now_s, worker.rss_bytes()))
                if worker.server.process.poll() is not None:
                    raise RuntimeError(f"the worker has ended:\n{worker.server.log_tail()}")
            if passed_s >= census_due_s and case.census:
                census_due_s = float("inf")
                worker.command("memory_census", amount="10", task=shape.full_name(case.census))
            if redis.llen(worker.queue) <= most_waiting:
                passed_s += now_s - last_s
                due = []
                for task, rate in rates.items():
                    until = min(int(rate * passed_s), at_most.get(task, sys.maxsize))
                    for number in range(sent[task], until):
                        given = arguments[task](number) if task in arguments else (number,)
                        due.append(_message(patterns[task], given))
                    sent[task] = max(until, sent[task])
                if due:
                    redis.lpush(worker.queue, *due)
            last_s = now_s
            time.sleep(_TICK_S)
        wait_until("all messages are taken", lambda: redis.llen(worker.queue) == 0, 120)
    return sent


def _pattern(
    task: str, worker: _Running, connection: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    """A message as Celery sends it: to make each anew costs more than the tasks do."""
    aside = f"{worker.queue}-pattern"
    given = {"ignore_result": True, "retry": False, **options}
    worker.client.send_task(task, (0,), queue=aside, connection=connection, **given)
    message: dict[str, Any] = json.loads(connection.default_channel.client.lpop(aside))
    message["properties"]["delivery_info"]["routing_key"] = worker.queue
    return message


def _message(pattern: Mapping[str, Any], given: Sequence[Any]) -> str:
    """The message of one run: with arguments, an id and a delivery tag of its own."""
    task_id = str(uuid.uuid4())
    _, *rest = json.loads(base64.b64decode(pattern["body"]))
    body = base64.b64encode(json.dumps([given, *rest]).encode()).decode()
    argsrepr = repr(tuple(given))[:_ARGSREPR_MAX]
    headers = {**pattern["headers"], "id": task_id, "root_id": task_id, "argsrepr": argsrepr}
    properties = {
        **pattern["properties"],
        "correlation_id": task_id,
        "delivery_tag": str(uuid.uuid4()),
    }
    return json.dumps({**pattern, "body": body, "headers": headers, "properties": properties})


def _children(pid: int) -> list[int]:
    """The pool's processes, without starting one: those of all threads of the main process."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, children.read_text().split())
    return [each for each in found if not _is_reporter(each)]


def _is_reporter(pid: int) -> bool:
    with suppress(OSError):
        return b"otel_celery_memory.reporter" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


@contextmanager
def _worker(
    shape: Shape, broker: Broker, directory: Path, endpoint: str, environ: Mapping[str, str]
) -> Iterator[_Running]:
    name = shape.module.rpartition(".")[2]
    # Of several cases of one module at once each has a name of its own, to be asked by it.
    queue = f"{name}-{time.monotonic_ns()}"
    node = f"{queue}@truth"
    command = [
        *(sys.executable, "-m", "celery", f"--app={shape.program.app}", "worker"),
        *(f"--hostname={node}", f"--queues={queue}", "--loglevel=INFO"),
        *("--without-mingle", "--without-gossip", *shape.case.worker),
    ]
    with (
        TemporaryDirectory(prefix=f"{name}-", dir=_TMPFS) as tmpfs,
        running(
            name, command, directory, {**_environ(shape, broker, endpoint, tmpfs), **environ}
        ) as server,
    ):
        server.wait_ready(lambda: f"{node} ready" in server.log.read_text(errors="replace"))
        yield _Running(server, broker.client(), node, queue)


def _environ(shape: Shape, broker: Broker, endpoint: str, tmpfs: str) -> Mapping[str, str]:
    """Of ours only where to send: all else is default, or the case's."""
    environ = worker_environ(broker, endpoint)
    del environ["OTEL_CELERY_MEMORY_EXPORT_INTERVAL"]
    del environ["OTEL_CELERY_MEMORY_WARM_UP"]
    environ |= {**(shape.case.environ or {}), "TRUTH_TMPFS": tmpfs}
    if shape.program.path is not None:
        paths = (str(shape.program.path), environ.get("PYTHONPATH", ""))
        return {**environ, "BROKER": broker.url, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    modules = ",".join((shape.module, *shape.program.imports))
    return {**environ, "TRUTH_CASE": modules, "TRUTH_BROKER": broker.url}
