"""CPU of a whole real worker a task: not instrumented, ours by default, and the guides' recipe.

Batches in turn (`benchmarks.batches`). Even equal processes differ by the layout of their memory,
so all are restarted a few times. A second bare worker shows how much two equal ones still differ:
the noise of the table.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from celery import Celery

from benchmarks.batches import PARTS, Cost, bench_worker, interval, ratio
from demo.receiver import Receiver
from tests.redis_server import running_redis

VARIANTS = ("bare", "bare again", "empty receivers", "default", "guides")
BOUNDS = {"default": 1.03}
"""Expected ratio to bare; printed for people to compare."""
SMALLER_BATCHES = {"guides": 20}
"""Share of the tasks for the recipe: it takes so much longer that it would run most of the time."""
STARTS, ROUNDS, TASKS, WARM_UP = 4, 15, 1_000, 2


def main(arguments: Sequence[str] = ()) -> None:
    """Measures and prints the table."""
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
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        workers = {
            variant: stack.enter_context(bench_worker(variant, variant, url, directory, environ))
            for variant in variants
        }
        client = Celery("client", broker=url, set_as_current=False)
        for number in range(-WARM_UP, rounds):
            # In a different order each round.
            order = random.sample(variants, len(variants))
            costs = {
                each: workers[each].batch(client, url, tasks // SMALLER_BATCHES.get(each, 1)).cpu_s
                for each in order
            }
            if number >= 0:
                found.append({variant: costs[variant] for variant in variants})
    return found


def _print_table(variants: Sequence[str], rounds: list[dict[str, Cost]], tasks: int) -> None:
    print(f"A real worker, {len(rounds)} rounds of {tasks:,} allocation-heavy tasks in turns")
    print(f"  {'CPU ms a task':16}{'all':>8}{''.join(f'{part:>10}' for part in PARTS)}   of bare")
    for variant in variants:
        costs = [each[variant] for each in rounds]
        means = [sum(cost[part] for cost in costs) / len(costs) * 1e3 for part in PARTS]
        pairs = [(sum(each[variant].values()), sum(each["bare"].values())) for each in rounds]
        low, high = interval(pairs)
        bound = BOUNDS.get(variant)
        print(
            f"  {variant:16}{sum(means):8.3f}{''.join(f'{mean:10.3f}' for mean in means)}"
            f"{ratio(pairs):10.3f}  95 %: {low:.3f} to {high:.3f}"
            f"{f'   (bound {bound})' if bound else ''}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
