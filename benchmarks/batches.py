"""Real workers run batches of tasks in turn: the cost of a batch.

Each variant has one long-lived worker. In turn, each gets the same short batch, put in its queue at
once, so that it is busy from the first task to the last. The CPU time of the worker, its children
and its reporter is read from the kernel. A machine that slows down slows all variants of a round,
so only ratios within a round are compared (`benchmarks.statistics`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import psutil
import redis
from celery import Celery

from tests.processes import Server, running
from tests.worker.harness import children_of, reporters_of

ROOT = Path(__file__).resolve().parents[1]
SETTLE_S = 0.1
"""Time for the reporter to read what the last tasks wrote."""
PARTS = ("main", "children", "reporter")
PATIENCE_S = 300.0
_ID = "00000000-0000-0000-0000-000000000000"
_TAG = "11111111-1111-1111-1111-111111111111"

Cost = Mapping[str, float]
"""CPU seconds by part of the worker."""


@dataclass(frozen=True)
class Batch:
    """Cost of one batch per task: CPU, time from first to last, and how long each run took.

    ``runs_s`` are times from the beginning of a run's function to that of the next one's in one
    child.
    """

    cpu_s: Cost
    wall_s: float
    runs_s: Sequence[float] = ()

    @property
    def total_s(self) -> float:
        """CPU of all parts."""
        return sum(self.cpu_s.values())


@dataclass(frozen=True)
class Memory:
    """Private bytes (USS) of a worker: the largest child's, and of all its processes."""

    child: int
    worker: int
    reporter_rss: int


class Messages:
    """Messages as Celery sends them, made from one of each task: to send each anew takes longer."""

    def __init__(self, client: Celery, store: Any) -> None:
        self._client, self._store = client, store
        self._patterns: dict[tuple[str, str, str], str] = {}

    def of(self, task: str, queue: str, *args: str) -> str:
        """One more message of this task."""
        key = (task, queue, repr(args))
        if key not in self._patterns:
            self._patterns[key] = self._pattern(task, queue, args)
        new = self._patterns[key].replace(_ID, str(uuid.uuid4()))
        return new.replace(_TAG, str(uuid.uuid4()))

    def _pattern(self, task: str, queue: str, args: Sequence[str]) -> str:
        aside = f"{queue}.pattern"
        self._client.send_task(task, args, queue=aside, task_id=_ID, retry=False)
        message = json.loads(self._store.lpop(aside))
        message["properties"]["delivery_info"]["routing_key"] = queue
        message["properties"]["delivery_tag"] = _TAG
        return json.dumps(message)


@dataclass(frozen=True)
class BenchWorker:
    """One running worker and its queue, a list in Redis."""

    server: Server
    queue: str
    messages: Messages
    store: Any

    @property
    def pid(self) -> int:
        """Of its main process."""
        return self.server.process.pid

    def cpu_s(self) -> Cost:
        """CPU time of all its processes since they started, ended ones included."""
        main = psutil.Process(self.pid)
        reporters = set(reporters_of(self.pid))
        children = {child.pid for child in main.children(recursive=True)} - reporters
        ended = main.cpu_times()
        return {
            "main": _cpu_clock_s(self.pid),
            "children": sum(map(_cpu_clock_s, children))
            + ended.children_user
            + ended.children_system,
            "reporter": sum(map(_cpu_clock_s, reporters)),
        }

    def reporter_rss_bytes(self) -> int:
        """RSS of its reporter; 0 if it has none."""
        return sum(psutil.Process(pid).memory_info().rss for pid in reporters_of(self.pid))

    def memory(self) -> Memory:
        """Private bytes now."""
        children = [_uss_bytes(pid) for pid in children_of(self.pid)]
        reporters = sum(map(_uss_bytes, reporters_of(self.pid)))
        return Memory(
            max(children),
            _uss_bytes(self.pid) + sum(children) + reporters,
            self.reporter_rss_bytes(),
        )

    def batch(self, tasks: Sequence[str], count: int, ends: int = 1) -> Batch:
        """Runs so many tasks, of these in turn; ``ends`` times the one that tells about them."""
        finished = f"{self.queue}.finished"
        waiting = [self.messages.of(task, self.queue) for task in islice(cycle(tasks), count)]
        waiting += [self.messages.of("bench.done", self.queue, finished) for _ in range(ends)]
        before, began_s = self.cpu_s(), time.perf_counter()
        # The worker takes from the right end.
        self.store.lpush(self.queue, *waiting)
        told = [self._told(finished) for _ in range(ends)]
        wall_s = time.perf_counter() - began_s
        time.sleep(SETTLE_S)
        after = self.cpu_s()
        runs_s = [(end - begin) / 1e9 for each in told for begin, end in pairwise(each)]
        cpu_s = {part: (after[part] - before[part]) / count for part in PARTS}
        return Batch(cpu_s, wall_s / count, runs_s)

    def stop(self) -> None:
        """Warm shutdown: contenders write and send what they still have."""
        os.kill(self.pid, signal.SIGTERM)
        self.server.process.wait(PATIENCE_S)

    def _told(self, key: str) -> array[int]:
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            if self.server.process.poll() is not None:
                raise RuntimeError(f"the worker has ended:\n{self.server.log_tail()}")
            found = self.store.blpop([key], timeout=5)
            if found is not None:
                began_ns: array[int] = array("q")
                began_ns.frombytes(found[1])
                return began_ns
        raise TimeoutError(f"{self.queue} does not come to its end:\n{self.server.log_tail()}")


def _cpu_clock_s(pid: int) -> float:
    """The kernel's CPU clock of a process: nanoseconds, where /proc has hundredths of a second."""
    # clock_getcpuclockid(3), which Python has for threads only.
    return time.clock_gettime(~pid << 3 | 2)


def _uss_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_full_info().uss)


@contextmanager
def bench_worker(
    name: str,
    contender: str,
    url: str,
    directory: Path,
    environ: Mapping[str, str],
    children: int = 1,
) -> Iterator[BenchWorker]:
    """A worker of `benchmarks.app`, until the context ends."""
    name = name.replace(" ", "-")
    dropped = ("OTEL_", "DD_", "BENCH_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    command = [
        *(sys.executable, "-m", "celery", "--app=benchmarks.app", "worker"),
        *(f"--hostname={name}@bench", f"--queues={name}", f"--concurrency={children}"),
        *("--without-mingle", "--without-gossip"),
    ]
    given = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",
        "NO_PROXY": "127.0.0.1",
        "BENCH_BROKER": url,
        "BENCH_CONTENDER": contender,
        **environ,
    }
    client = Celery("client", broker=url, set_as_current=False)
    store = redis.Redis.from_url(url, socket_timeout=None)
    with running(name, command, directory, given) as server:
        yield BenchWorker(server, name, Messages(client, store), store)
