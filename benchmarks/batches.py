"""Real workers run batches of tasks in turn: the cost of a batch, and ratios between variants.

Each variant has one long-lived worker with one child. In turn, each gets the same short batch,
published beforehand and put in its queue at once, so that it is busy from the first task to the
last. The CPU time of the worker, its children and its reporter is read from the kernel. A machine
that slows down slows all variants of a round, so only ratios within a round are compared.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis
from celery import Celery

from tests.processes import running
from tests.worker.harness import reporters_of

ROOT = Path(__file__).resolve().parents[1]
SETTLE_S = 0.1
"""Time for the reporter to read what the last tasks wrote."""
RESAMPLES = 2_000
PARTS = ("main", "children", "reporter")

Cost = Mapping[str, float]
"""CPU seconds by part of the worker."""


@dataclass(frozen=True)
class Batch:
    """Cost of one batch per task: CPU, and time from the first task to the last."""

    cpu_s: Cost
    wall_s: float


@dataclass(frozen=True)
class BenchWorker:
    """One running worker and its queue, a list in Redis."""

    pid: int
    queue: str

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

    def batch(self, client: Celery, url: str, tasks: int) -> Batch:
        """Runs a batch of tasks."""
        store = redis.Redis.from_url(url, socket_timeout=None)
        waiting, finished = f"{self.queue}.waiting", f"{self.queue}.finished"
        with client.connection_for_write() as link, client.amqp.Producer(link) as producer:
            for _ in range(tasks):
                client.send_task("bench.build", queue=waiting, producer=producer)
            client.send_task("bench.done", (finished,), queue=waiting, producer=producer)
        before, began_s = self.cpu_s(), time.perf_counter()
        store.rename(waiting, self.queue)
        if store.blpop([finished], timeout=120) is None:
            raise TimeoutError(f"the worker {self.queue} does not come to its end")
        wall_s = time.perf_counter() - began_s
        time.sleep(SETTLE_S)
        after = self.cpu_s()
        return Batch({part: (after[part] - before[part]) / tasks for part in PARTS}, wall_s / tasks)


def _cpu_clock_s(pid: int) -> float:
    """The kernel's CPU clock of a process: nanoseconds, where /proc has hundredths of a second."""
    # clock_getcpuclockid(3), which Python has for threads only.
    return time.clock_gettime(~pid << 3 | 2)


@contextmanager
def bench_worker(
    name: str, variant: str, url: str, directory: Path, environ: Mapping[str, str]
) -> Iterator[BenchWorker]:
    """A worker of `benchmarks.worker_app` with one child, until the context ends."""
    name = name.replace(" ", "-")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    command = [
        *(sys.executable, "-m", "celery", "--app=benchmarks.worker_app", "worker"),
        *(f"--hostname={name}@bench", f"--queues={name}", "--concurrency=1"),
        *("--without-mingle", "--without-gossip"),
    ]
    given = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",
        "NO_PROXY": "127.0.0.1",
        "BENCH_BROKER": url,
        "BENCH_VARIANT": variant,
        **environ,
    }
    with running(name, command, directory, given) as server:
        yield BenchWorker(server.process.pid, name)


Pairs = Sequence[tuple[float, float]]
"""Costs of a variant and of bare, in one round."""


def ratio(pairs: Pairs) -> float:
    """Ratio of the sums, not a median: an export is in few of the batches, and counts."""
    return sum(ours for ours, _ in pairs) / sum(bare for _, bare in pairs)


def interval(pairs: Pairs) -> tuple[float, float]:
    """The 95 % interval of the ratio, by drawing rounds again (bootstrap)."""
    chance = random.Random(1)
    drawn = sorted(ratio(chance.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]
