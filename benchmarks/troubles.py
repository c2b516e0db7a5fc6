"""Throughput of a worker whose Collector is in trouble, against a bare one's.

Batches in turn (`benchmarks.batches`), with exports every second, so that each batch overlaps one.
A second bare worker shows the noise, and one whose Collector answers the cost of measuring.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.batches import Batch, bench_worker
from benchmarks.statistics import interval, ratio
from soak.collector import Trouble, TroubledReceiver
from tests.redis_server import running_redis

BARE = ("bare", "bare again")
VARIANTS = (*BARE, *(trouble.value for trouble in Trouble))
STARTS, ROUNDS, TASKS, WARM_UP = 2, 15, 1_000, 2


def main(arguments: Sequence[str] = ()) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.troubles", description=__doc__)
    parser.add_argument("--starts", type=int, default=STARTS, help="of all the workers")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of batches, after each start")
    parser.add_argument("--tasks", type=int, default=TASKS, help="tasks in a batch")
    options = parser.parse_args(arguments)
    rounds: list[dict[str, Batch]] = []
    rss_bytes = dict.fromkeys(VARIANTS, 0)
    for _ in range(options.starts):
        rounds += _measure(options.rounds, options.tasks, rss_bytes)
    _print_table(rounds, rss_bytes, options.tasks)


def _measure(rounds: int, tasks: int, rss_bytes: dict[str, int]) -> list[dict[str, Batch]]:
    found: list[dict[str, Batch]] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(running_redis(directory))
        workers = {
            variant: stack.enter_context(
                bench_worker(
                    *(variant, "bare" if variant in BARE else "default", url, directory),
                    _environ(stack, variant),
                )
            )
            for variant in VARIANTS
        }
        for number in range(-WARM_UP, rounds):
            # In a different order each round.
            order = random.sample(VARIANTS, len(VARIANTS))
            batches = {each: workers[each].batch(("bench.allocating",), tasks) for each in order}
            for variant, worker in workers.items():
                rss_bytes[variant] = max(rss_bytes[variant], worker.reporter_rss_bytes())
            if number >= 0:
                found.append(batches)
    return found


def _environ(stack: ExitStack, variant: str) -> dict[str, str]:
    """Each measured worker has a Collector of its own."""
    if variant in BARE:
        return {}
    receiver = stack.enter_context(TroubledReceiver())
    receiver.turn(Trouble(variant))
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "1",
    }


def _print_table(rounds: Sequence[dict[str, Batch]], rss_bytes: dict[str, int], tasks: int) -> None:
    print(f"A real worker, {len(rounds)} rounds of {tasks:,} allocation-heavy tasks in turns")
    print(
        f"  {'Collector':28}{'tasks/s':>8}  {'throughput of bare':28}  {'CPU of bare':20}{'RSS':>5}"
    )
    for variant in VARIANTS:
        pairs = [(each["bare"].wall_s, each[variant].wall_s) for each in rounds]
        cpu = [
            (sum(each[variant].cpu_s.values()), sum(each["bare"].cpu_s.values())) for each in rounds
        ]
        rate = len(rounds) / sum(wall_s for _, wall_s in pairs)
        print(
            f"  {variant:28}{rate:8.0f}  {_shown(pairs):28}  {_shown(cpu):20}"
            f"{rss_bytes[variant] / 2**20:5.0f}"
        )
    print("  Ratios with their 95 % intervals. RSS: MiB of the reporter, at most.")


def _shown(pairs: Sequence[tuple[float, float]]) -> str:
    low, high = interval(pairs)
    return f"{ratio(pairs):.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main(sys.argv[1:])
