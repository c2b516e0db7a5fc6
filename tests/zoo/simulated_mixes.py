"""Simulated mixes of tasks in a worker that grows, and whom the attribution accuses."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from otel_celery_memory.leaks.attribution import Attribution, TaskEvidence, attribute

KIB, MIB = 1024, 1024 * 1024
LEAST = 90.0

Left = Callable[[random.Random, int], tuple[float, bool]]
"""What a task's run with this number leaves behind, and whether it fails."""


def nothing(_rng: random.Random, _number: int) -> tuple[float, bool]:
    return 0.0, False


def little(rng: random.Random, _number: int) -> tuple[float, bool]:
    """Less than what can be told from nothing, on average."""
    return rng.choice((0.0, 56.0, 120.0)), False


def noise(rng: random.Random, _number: int) -> tuple[float, bool]:
    return rng.gauss(0.0, 2.0 * KIB), rng.random() < 0.1


def back_and_forth(rng: random.Random, number: int) -> tuple[float, bool]:
    """Takes from a pool in one run and gives back in the next."""
    return (1 if number % 2 else -1) * 64.0 * KIB, False


def one_spike(_rng: random.Random, number: int) -> tuple[float, bool]:
    return 300.0 * MIB * {30: 1, 31: -1}.get(number, 0), False


def fills_a_cache(_rng: random.Random, number: int) -> tuple[float, bool]:
    return (4.0 * KIB if number < 100 else 0.0), False


def swept(rng: random.Random, _number: int) -> tuple[float, bool]:
    """The collector comes in its runs, for the garbage of others."""
    return (-3.0 * MIB if rng.random() < 0.01 else 0.0), False


def own_garbage(_rng: random.Random, number: int) -> tuple[float, bool]:
    """Makes cycles of 59 KiB, and the collector comes in each fiftieth of its own runs."""
    return (59.0 * KIB if (number + 1) % 50 else -49 * 59.0 * KIB), False


def foreign_garbage(_rng: random.Random, _number: int) -> tuple[float, bool]:
    """Makes cycles of 59 KiB that are collected in the runs of others."""
    return 59.0 * KIB, False


INNOCENT = (nothing, little, noise, back_and_forth, one_spike, fills_a_cache, swept, own_garbage)


def leaks(size: float, share: float = 1.0) -> Left:
    """So much, in a share of runs."""
    return lambda rng, _number: (size if rng.random() < share else 0.0, False)


def leaks_if_it_fails(size: float) -> Left:
    """So much in each tenth run, which fails."""
    return lambda _rng, number: (size, True) if number % 10 == 0 else (0.0, False)


@dataclass(frozen=True)
class Mix:
    """Who leaks, beside so many innocent tasks; each run is sampled with this probability."""

    name: str
    guilty: dict[str, Left]
    innocent: int
    runs: int
    sampled: float = 1.0
    condition: str = ""


MIXES = (
    Mix("10 KiB, beside 10", {"leak": leaks(10 * KIB)}, 10, 5_500),
    Mix("1 KiB, beside 10, 1 in 10 sampled", {"leak": leaks(KIB)}, 10, 55_000, 0.1),
    Mix("1 KiB and 9 KiB, beside 2", {"small": leaks(KIB), "large": leaks(9 * KIB)}, 2, 4_000),
    Mix("1 run in 100, beside 2, 1 in 10", {"leak": leaks(100 * KIB, 0.01)}, 2, 30_000, 0.1),
    Mix("1 run in 100, beside 299, all", {"leak": leaks(100 * KIB, 0.01)}, 299, 1_000_000),
    Mix("10 KiB, beside 299", {"leak": leaks(10 * KIB)}, 299, 150_000),
    Mix("if it fails", {"leak": leaks_if_it_fails(10 * KIB)}, 10, 22_000, 1.0, "in runs that fail"),
    Mix("beside garbage", {"leak": leaks(5 * KIB), "_garbage": foreign_garbage}, 5, 7_000),
    Mix("nobody", {}, 300, 150_000),
)
"""`_` begins the names of those that are innocent though they leave something behind."""


@dataclass(frozen=True)
class Account:
    """Whether all that leak were found at the end, and how often an innocent was accused."""

    found: bool
    right_condition: bool
    looks: int
    wrong_looks: int
    largest_wrong_share: float
    share_of_leaks: float


def play(mix_number: int, seed: int) -> Account:
    """One worker with one of `MIXES`, at which somebody looks ten times.

    The looks are in the second half, as at first garbage has not been collected, and caches fill.
    """
    mix = MIXES[mix_number]
    rng = random.Random(f"{mix.name} {seed}")
    tasks = dict(mix.guilty)
    tasks |= {f"_{n}": INNOCENT[n % len(INNOCENT)] for n in range(mix.innocent)}
    names, evidence = list(tasks), {task: TaskEvidence() for task in tasks}
    runs: Counter[str] = Counter()
    grown, looks, wrong, worst, told = 0.0, 0, 0, 0.0, Attribution()
    for number in range(1, mix.runs + 1):
        task = names[int(rng.random() * len(names))]
        left, failed = tasks[task](rng, runs[task])
        runs[task] += 1
        grown += left if task not in ("_garbage",) and tasks[task] is not swept else 0.0
        if rng.random() < mix.sampled:
            evidence[task].add(left, LEAST, failed)
        if number % (mix.runs // 20) == 0:
            told = attribute(grown, runs, evidence)
            if number < mix.runs // 2:
                continue
            looks += 1
            innocent = [each for each in told.shares if each.task.startswith("_")]
            wrong += bool(innocent)
            worst = max([worst, *(each.share for each in innocent)])
    accused = {each.task for each in told.shares}
    guilty = {task for task in mix.guilty if not task.startswith("_")}
    return Account(
        guilty <= accused,
        all(each.condition == mix.condition for each in told.shares if each.task in guilty),
        looks,
        wrong,
        worst,
        sum(each.share for each in told.shares if each.task in guilty),
    )


def mixes_table(series: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    """A line for each mix."""
    yield (
        f"{'mix':34} {'workers':>7} {'found':>6} {'condition':>9} {'their share':>11} "
        f"{'looks with an innocent':>22} {'its share':>9}"
    )
    for mix_number, mix in enumerate(MIXES):
        count = series if mix.innocent < 100 else max(1, series // 10)
        accounts = list(pool.map(partial(play, mix_number), range(count)))
        looks = sum(each.looks for each in accounts)
        yield (
            f"{mix.name:34} {count:>7} {sum(each.found for each in accounts) / count:>6.0%} "
            f"{sum(each.right_condition for each in accounts) / count:>9.0%} "
            f"{sum(each.share_of_leaks for each in accounts) / count:>11.0%} "
            f"{sum(each.wrong_looks for each in accounts):>13} of {looks:>5} "
            f"{max(each.largest_wrong_share for each in accounts):>9.0%}"
        )
