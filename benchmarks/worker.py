"""CPU of a whole real worker a task: not instrumented, ours by default, and the guides' recipe.

One long-lived worker of each variant, with one child. Turn by turn each gets the same short batch,
published beforehand and put in its queue at once, so that it is busy from the first task to the
last; what it and its children and reporter used of the CPU until then is read from the kernel. A
machine that slows down slows all variants of a round, so the ratios within a round are what counts.
Two equal processes differ too, by where their memory lies, so all are started anew a few times. A
second bare worker shows how far two that are equal differ after all: the noise of the table.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis
from celery import Celery

from demo.receiver import Receiver
from tests.processes import running
from tests.redis_server import running_redis
from tests.worker.harness import reporters_of

VARIANTS = ("bare", "bare again", "empty receivers", "default", "guides")
BOUNDS = {"default": 1.03}
"""Of the ratio to bare; printed, and for a person to compare."""
SMALLER_BATCHES = {"guides": 20}
"""It takes so much longer for a task that it would have the machine to itself most of the time."""
ROOT = Path(__file__).resolve().parents[1]
STARTS, ROUNDS, TASKS, WARM_UP = 4, 15, 1_000, 2
SETTLE_S = 0.1
"""The reporter reads what the last tasks wrote."""
RESAMPLES = 2_000
PARTS = ("main", "children", "reporter")

Cost = Mapping[str, float]
"""CPU seconds by part of the worker."""


@dataclass(frozen=True)
class BenchWorker:
    """One running worker and the list in Redis that it takes its tasks from."""

    pid: int
    queue: str

    def cpu_s(self) -> Cost:
        """CPU time of all its processes since they started, those that ended included."""
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


def _cpu_clock_s(pid: int) -> float:
    """The kernel's CPU clock of any process, in nanoseconds where /proc has hundredths."""
    # clock_getcpuclockid(3), which Python has for threads only.
    return time.clock_gettime(~pid << 3 | 2)


def main(arguments: Sequence[str] = ()) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__)
    parser.add_argument("--starts", type=int, default=STARTS, help="of all the workers")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of batches, after each start")
    parser.add_argument("--tasks", type=int, default=TASKS, help="tasks in a batch")
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    options = parser.parse_args(arguments)
    rounds = [
        each
        for _ in range(options.starts)
        for each in _measure(options.variants, options.rounds, options.tasks)
    ]
    _print_table(options.variants, rounds, options.tasks)


def _measure(variants: Sequence[str], rounds: int, tasks: int) -> list[dict[str, Cost]]:
    found: list[dict[str, Cost]] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(running_redis(directory))
        receiver = stack.enter_context(Receiver())
        workers = {
            variant: stack.enter_context(_worker(variant, url, receiver.endpoint, directory))
            for variant in variants
        }
        client = Celery("client", broker=url, set_as_current=False)
        for number in range(-WARM_UP, rounds):
            # Not always after the same neighbour.
            order = random.sample(variants, len(variants))
            costs = {
                each: _batch(workers[each], client, url, tasks // SMALLER_BATCHES.get(each, 1))
                for each in order
            }
            if number >= 0:
                found.append({variant: costs[variant] for variant in variants})
    return found


@contextmanager
def _worker(variant: str, url: str, endpoint: str, directory: Path) -> Iterator[BenchWorker]:
    name = variant.replace(" ", "-")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    command = [
        *(sys.executable, "-m", "celery", "--app=benchmarks.worker_app", "worker"),
        *(f"--hostname={name}@bench", f"--queues={name}", "--concurrency=1"),
        *("--without-mingle", "--without-gossip"),
    ]
    environ = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",
        "NO_PROXY": "127.0.0.1",
        "BENCH_BROKER": url,
        "BENCH_VARIANT": variant,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
    }
    with running(name, command, directory, environ) as server:
        yield BenchWorker(server.process.pid, name)


def _batch(worker: BenchWorker, client: Celery, url: str, tasks: int) -> Cost:
    """CPU seconds a task of one batch."""
    store = redis.Redis.from_url(url, socket_timeout=None)
    waiting, finished = f"{worker.queue}.waiting", f"{worker.queue}.finished"
    with client.connection_for_write() as connection, client.amqp.Producer(connection) as producer:
        for _ in range(tasks):
            client.send_task("bench.build", queue=waiting, producer=producer)
        client.send_task("bench.done", (finished,), queue=waiting, producer=producer)
    before = worker.cpu_s()
    store.rename(waiting, worker.queue)
    if store.blpop([finished], timeout=120) is None:
        raise TimeoutError(f"the worker {worker.queue} does not come to its end")
    time.sleep(SETTLE_S)
    after = worker.cpu_s()
    return {part: (after[part] - before[part]) / tasks for part in PARTS}


def _print_table(variants: Sequence[str], rounds: list[dict[str, Cost]], tasks: int) -> None:
    print(f"A real worker, {len(rounds)} rounds of {tasks:,} allocation-heavy tasks in turns")
    print(f"  {'CPU ms a task':16}{'all':>8}{''.join(f'{part:>10}' for part in PARTS)}   of bare")
    for variant in variants:
        costs = [each[variant] for each in rounds]
        means = [sum(cost[part] for cost in costs) / len(costs) * 1e3 for part in PARTS]
        pairs = [(sum(each[variant].values()), sum(each["bare"].values())) for each in rounds]
        low, high = _interval(pairs)
        bound = BOUNDS.get(variant)
        print(
            f"  {variant:16}{sum(means):8.3f}{''.join(f'{mean:10.3f}' for mean in means)}"
            f"{_ratio(pairs):10.3f}  95 %: {low:.3f} to {high:.3f}"
            f"{f'   (bound {bound})' if bound else ''}"
        )


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Of the sums and not a median: an export falls into one batch of many, and counts."""
    return sum(ours for ours, _ in pairs) / sum(bare for _, bare in pairs)


def _interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The 95 % interval of the ratio, by drawing rounds again (bootstrap)."""
    chance = random.Random(1)
    drawn = sorted(_ratio(chance.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]


if __name__ == "__main__":
    main(sys.argv[1:])
