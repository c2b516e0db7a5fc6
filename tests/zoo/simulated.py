"""Simulated workers, and what the detector says of them: `python -m tests.zoo.simulated`.

Seeds are fixed, so the figures are the same again. A series is of one worker with one resource.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

from otel_celery_memory.leaks.blocks import STEP_S
from otel_celery_memory.leaks.growth import GrowthDetector, Step
from otel_celery_memory.leaks.verdict import State
from tests.zoo.series import LEAKS, NEGATIVES, Leak, leak
from tests.zoo.simulated_mixes import mixes_table

DAY_STEPS = int(86_400 / STEP_S)
TEN_MINUTES = int(600 / STEP_S)


@dataclass(frozen=True)
class Seen:
    """What came of one series. Steps are counted from its beginning; ``None`` is never."""

    steps: int
    leaking: int | None
    suspicions: int
    late_to_end: int | None
    """Steps from the plateau, or a later suspicion, to the end of the suspicion; the longest."""


@dataclass(frozen=True)
class Found:
    """When a leak was found, in runs and seconds after it began; ``None`` is never."""

    suspected_runs: int | None
    suspected_s: float | None
    leaking_runs: int | None
    leaking_s: float | None


def watch_negative(name: str, count: int, seed: int) -> Seen:
    """Lets a detector see one series that is no leak."""
    series = NEGATIVES[name](random.Random(f"{name} {seed}"), count)
    detector = GrowthDetector(series.rules)
    leaking, suspicions, since, late = None, 0, None, None
    for number, step in enumerate(series.steps):
        state = detector.add(step).state
        suspected = state in (State.SUSPECTED, State.LEAKING)
        if state is State.LEAKING and leaking is None:
            leaking = number
        if suspected and since is None:
            suspicions, since = suspicions + 1, number
        if series.flat_from is not None and since is not None and number >= series.flat_from:
            late = max(late or 0, number - max(since, series.flat_from))
        if not suspected:
            since = None
    return Seen(len(series.steps), leaking, suspicions, late)


def watch_leak(kind: Leak, runs_per_s: float, most_steps: int, seed: int) -> Found:
    """Lets a detector see one leak, in a worker that was quiet for ten minutes."""
    rng = random.Random(f"{kind.name} {runs_per_s} {seed}")
    detector, runs = GrowthDetector(), 0
    suspected: tuple[int | None, float | None] = (None, None)
    series: Iterator[Step] = leak(rng, kind, runs_per_s, quiet_steps=TEN_MINUTES)
    for number, step in enumerate(islice(series, most_steps)):
        runs += step.runs if number >= TEN_MINUTES else 0
        passed_s = (number + 1 - TEN_MINUTES) * STEP_S
        state = detector.add(step).state
        if state is State.LEAKING:
            return Found(*suspected, runs, passed_s)
        if state is State.SUSPECTED and suspected == (None, None):
            suspected = (runs, passed_s)
    return Found(*suspected, None, None)


def negatives_table(
    names: Iterable[str], series: int, steps: int, pool: ProcessPoolExecutor
) -> Iterator[str]:
    """A line for each kind of series that is no leak."""
    yield (
        f"{'no leak':28} {'series':>6} {'process-days':>12} {'leaking':>8} {'suspected':>9} "
        f"{'a day':>6} {'to ended, median':>16} {'99 %':>6} {'most':>6} {'over 10 min':>11}"
    )
    total_days, total_leaking = 0.0, 0
    for name in names:
        seen = list(pool.map(partial(watch_negative, name, steps), range(series), chunksize=10))
        days = sum(each.steps for each in seen) / DAY_STEPS
        leaking = sum(each.leaking is not None for each in seen)
        late = sorted(each.late_to_end * STEP_S for each in seen if each.late_to_end is not None)
        total_days, total_leaking = total_days + days, total_leaking + leaking
        ends = (
            f"{statistics.median(late):>14.0f} s {late[int(0.99 * (len(late) - 1))]:>4.0f} s "
            f"{late[-1]:>4.0f} s {sum(each > 600 for each in late):>11}"
            if late
            else f"{'-':>16} {'-':>6} {'-':>6} {'-':>11}"
        )
        yield (
            f"{name:28} {series:>6} {days:>12.0f} {leaking:>8} "
            f"{sum(each.suspicions > 0 for each in seen) / series:>9.1%} "
            f"{sum(each.suspicions for each in seen) / days:>6.1f} {ends}"
        )
    yield f"{'all':28} {'':6} {total_days:>12.0f} {total_leaking:>8}"


def leaks_table(
    series: int, most_steps: int, rates: Iterable[float], pool: ProcessPoolExecutor
) -> Iterator[str]:
    """A line for each size of leak and each rate of runs."""
    yield (
        f"{'leak':22} {'runs/s':>6} {'suspected':>9} {'runs: median':>12} {'95 %':>8} "
        f"{'wanted':>8} {'met by':>7} {'s: median':>9} {'leaking':>8} {'h: median':>9}"
    )
    for kind in LEAKS:
        for rate in rates:
            found = list(pool.map(partial(watch_leak, kind, rate, most_steps), range(series)))
            runs = sorted(each.suspected_runs for each in found if each.suspected_runs)
            if not runs:
                yield f"{kind.name:22} {rate:>6.0f} {0:>9.0%}"
                continue
            seconds = statistics.median(each.suspected_s for each in found if each.suspected_s)
            hours = [each.leaking_s / 3600 for each in found if each.leaking_s]
            yield (
                f"{kind.name:22} {rate:>6.0f} {len(runs) / series:>9.0%} "
                f"{statistics.median(runs):>12,.0f} {runs[int(0.95 * (len(runs) - 1))]:>8,} "
                f"{kind.within_runs:>8,} "
                f"{sum(each <= kind.within_runs for each in runs) / series:>7.0%} "
                f"{seconds:>9.0f} {len(hours) / series:>8.0%} "
                f"{statistics.median(hours) if hours else float('nan'):>9.1f}"
            )


def cost_table() -> Iterator[str]:
    """CPU time of a step: of a level that stands still, and of one that grows."""
    flat = NEGATIVES["plateau_with_noise"](random.Random(0), DAY_STEPS).steps
    growing = list(islice(leak(random.Random(0), LEAKS[1], 5.0), DAY_STEPS))
    for name, steps in (("stands still", flat), ("grows", growing)):
        detector = GrowthDetector()
        begun_s = time.process_time()
        for step in steps:
            detector.add(step)
        spent_us = (time.process_time() - begun_s) / len(steps) * 1e6
        yield f"a level that {name}: {spent_us:.0f} us of CPU a step"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1_000, help="of each kind that is no leak")
    parser.add_argument("--hours", type=float, default=3.0, help="how long each of them is")
    parser.add_argument("--leaks", type=int, default=100, help="series of each leak and rate")
    parser.add_argument("--leak-hours", type=float, default=24.0, help="how long each is at most")
    parser.add_argument("--mixes", type=int, default=100, help="workers of each mix of tasks")
    parser.add_argument("--only", default="", help="kinds that have this in their name")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    names = [name for name in NEGATIVES if arguments.only in name]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        steps = int(arguments.hours * 3_600 / STEP_S)
        for line in negatives_table(names, arguments.series, steps, pool):
            print(line, flush=True)
        if arguments.leaks:
            most = int(arguments.leak_hours * 3_600 / STEP_S)
            for line in leaks_table(arguments.leaks, most, (1, 3, 10, 30, 100), pool):
                print(line, flush=True)
        if arguments.mixes:
            for line in mixes_table(arguments.mixes, pool):
                print(line, flush=True)
    for line in cost_table():
        print(line)


if __name__ == "__main__":
    main()
