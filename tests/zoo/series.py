"""Simulated levels of workers: those that must not alarm, and leaks. The same for the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from otel_celery_memory.leaks.blocks import STEP_S
from otel_celery_memory.leaks.growth import GrowthRules, Step
from otel_celery_memory.leaks.verdict import Kind

KIB, MIB = 1024, 1024 * 1024
NOISE = 2.0 * KIB
BEGUN_S = 1_700_000_000.0
_RUNS_PER_S = 5.0


@dataclass(frozen=True)
class Series:
    """What one worker's detector is given. ``flat_from`` is the step from which nothing grows."""

    steps: list[Step]
    flat_from: int | None = None
    rules: GrowthRules = field(default_factory=GrowthRules)


Levels = Iterator[float]
Negative = Callable[[random.Random, int], Series]
NEGATIVES: dict[str, Negative] = {}


def negative(make: Negative) -> Negative:
    """Registers what must never be ``leaking``, by its name."""
    NEGATIVES[make.__name__] = make
    return make


def between(rng: random.Random, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def poisson(rng: random.Random, mean: float) -> int:
    """A count; normal where it is large."""
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    count, product, least = 0, rng.random(), math.exp(-mean)
    while product > least:
        count += 1
        product *= rng.random()
    return count


def steps_of(
    levels: Levels,
    floors: dict[int, float] | None = None,
    age_s: float = 60.0,
    noise: Callable[[], float] | None = None,
) -> list[Step]:
    """Changes of a level as steps of 5 s at five runs a second."""
    steps, before = [], None
    for number, true_level in enumerate(levels):
        level = true_level + (noise() if noise else 0.0)
        grown = 0.0 if before is None else level - before
        before = level
        steps.append(
            Step(
                BEGUN_S + number * STEP_S,
                grown,
                int(_RUNS_PER_S * STEP_S),
                age_s + number * STEP_S,
                (floors or {}).get(number),
            )
        )
    return steps


def gaussian(rng: random.Random, size: float = NOISE) -> Callable[[], float]:
    """Noise of a level."""
    return lambda: rng.gauss(0.0, size)


@negative
def plateau_with_noise(rng: random.Random, count: int) -> Series:
    size = between(rng, 100, 20 * MIB)
    return Series(steps_of((0.0 for _ in range(count)), noise=gaussian(rng, size)), 0)


@negative
def plateau_with_drifting_noise(rng: random.Random, count: int) -> Series:
    """Noise that remembers: each value is near the one before."""

    def levels() -> Levels:
        level, kept, size = 0.0, rng.uniform(0.5, 0.99), between(rng, KIB, 4 * MIB)
        for _ in range(count):
            level = kept * level + rng.gauss(0.0, size)
            yield level

    return Series(steps_of(levels()), 0)


@negative
def cache_fills_linearly(rng: random.Random, count: int) -> Series:
    size, full = between(rng, MIB, 60 * MIB), rng.randrange(count // 20, count // 2)
    levels = (size * min(1.0, number / full) for number in range(count))
    return Series(steps_of(levels, noise=gaussian(rng)), full)


@negative
def cache_fills_with_random_keys(rng: random.Random, count: int) -> Series:
    size, often = between(rng, MIB, 60 * MIB), rng.randrange(count // 100, count // 20)
    levels = (size * -math.expm1(-number / often) for number in range(count))
    return Series(steps_of(levels, noise=gaussian(rng)), _nearly_full(size, often))


def _nearly_full(size: float, often: float) -> int:
    """When what is to come is within the noise."""
    return int(often * math.log(size / (2 * NOISE)))


@negative
def deque_with_a_bound(rng: random.Random, count: int) -> Series:
    size, full = between(rng, 256 * KIB, 20 * MIB), rng.randrange(12, count // 6)
    begins = rng.randrange(count // 3)
    levels = (size * min(1.0, max(0, number - begins) / full) for number in range(count))
    return Series(steps_of(levels, noise=gaussian(rng)), begins + full)


@negative
def pool_grows_to_its_maximum(rng: random.Random, count: int) -> Series:
    each, most = between(rng, 64 * KIB, 4 * MIB), rng.randrange(5, 15)
    moments = sorted(int(rng.random() ** 2 * count / 2) for _ in range(most))
    levels = (each * sum(at <= number for at in moments) for number in range(count))
    return Series(steps_of(levels, noise=gaussian(rng)), moments[-1])


@negative
def heavy_tails(rng: random.Random, count: int) -> Series:
    size, shape = between(rng, KIB, 256 * KIB), rng.uniform(0.8, 2.0)
    levels = (size * rng.paretovariate(shape) for _ in range(count))
    return Series(steps_of(min(level, 4e9) for level in levels), 0)


@negative
def spikes_of_300_mb(rng: random.Random, count: int) -> Series:
    def levels() -> Levels:
        left, often = 0, between(rng, 0.002, 0.1)
        for _ in range(count):
            if left:
                left -= 1
            elif rng.random() < often:
                left = rng.randrange(1, 8)
            yield 300 * MIB * rng.uniform(0.7, 1.0) if left else 0.0

    return Series(steps_of(levels(), noise=gaussian(rng)), 0)


def _sawtooth(rng: random.Random, count: int, period: float, size: float) -> Series:
    """Garbage of cycles that a full collection takes, at moments that vary."""
    levels, floors, level, rate = [], {}, 0.0, size / period
    limit = size
    for number in range(count):
        level += rate * rng.uniform(0.5, 1.5)
        if level > limit:
            level, limit = 0.0, size * rng.uniform(0.7, 1.3)
            floors[number] = rng.gauss(0.0, NOISE)
        levels.append(level)
    return Series(steps_of(iter(levels), floors, noise=gaussian(rng)))


@negative
def sawtooth_short(rng: random.Random, count: int) -> Series:
    return _sawtooth(rng, count, rng.uniform(2, 16), between(rng, 64 * KIB, 100 * MIB))


@negative
def sawtooth_long(rng: random.Random, count: int) -> Series:
    return _sawtooth(rng, count, rng.uniform(60, 480), between(rng, 512 * KIB, 200 * MIB))


@negative
def fragmentation_plateau(rng: random.Random, count: int) -> Series:
    """Free memory that malloc keeps: grows by fewer and fewer chunks, some of them returned."""

    def levels() -> Levels:
        level, top, often = 0.0, between(rng, MIB, 60 * MIB), between(rng, 10, count / 10)
        for _ in range(count):
            if rng.random() < 0.5:
                level += (top - level) / often * 2 * rng.random()
            level -= min(level, rng.expovariate(1.0) * 64 * KIB) if rng.random() < 0.1 else 0.0
            yield level

    rules = GrowthRules(kind=Kind.FRAGMENTATION, collectable=False)
    return Series(steps_of(levels(), noise=gaussian(rng)), None, rules)


@negative
def steps_up_and_down(rng: random.Random, count: int) -> Series:
    def levels() -> Levels:
        level, often, size = 0.0, between(rng, 0.002, 0.2), between(rng, 256 * KIB, 20 * MIB)
        for _ in range(count):
            if rng.random() < often:
                level += rng.choice((-1, 1)) * size * rng.random()
            yield level

    return Series(steps_of(levels(), noise=gaussian(rng)))


@negative
def random_walk(rng: random.Random, count: int) -> Series:
    def levels() -> Levels:
        level, size = 0.0, between(rng, 4 * KIB, 4 * MIB)
        for _ in range(count):
            level += rng.gauss(0.0, size)
            yield level

    return Series(steps_of(levels()))


@negative
def load_that_comes_and_goes(rng: random.Random, count: int) -> Series:
    """What is kept follows the load: up for hours, and down again."""
    size, period = between(rng, 256 * KIB, 50 * MIB), rng.uniform(count / 6, count)
    phase = rng.uniform(0, math.tau)
    levels = (size / 2 * math.sin(phase + number / period * math.tau) for number in range(count))
    return Series(steps_of(levels, noise=gaussian(rng)), None)


@negative
def recycled_while_caches_fill(rng: random.Random, count: int) -> Series:
    """Four children fill a cache each, and are replaced; the first 30 s of each are left out."""
    lives = int(rng.uniform(20, 400))
    size, full = between(rng, MIB, 60 * MIB), max(8, int(lives * rng.uniform(0.2, 2.0)))
    ages = [rng.randrange(lives) for _ in range(4)]
    steps = []
    for number in range(count):
        grown = 0.0
        for child in range(4):
            ages[child] = (ages[child] + 1) % lives
            if ages[child] >= 6:
                grown += size / full if ages[child] <= full else 0.0
                grown += rng.gauss(0.0, NOISE)
        now_s = BEGUN_S + number * STEP_S
        steps.append(Step(now_s, grown, 100, max(ages) * STEP_S, None, 4))
    return Series(steps)


@negative
def clock_steps(rng: random.Random, count: int) -> Series:
    steps, shift = [], 0.0
    for step in plateau_with_noise(rng, count).steps:
        if rng.random() < 0.01:
            shift += rng.choice((-3600.0, -5.0, 7.0, 3600.0, 1e6))
        steps.append(Step(step.time_s + shift, step.grown, step.runs, step.age_s, step.floor))
    return Series(steps, 0)


@negative
def counters_that_go_back(rng: random.Random, count: int) -> Series:
    """A probe that says 0 for a moment, and one that begins again at 0."""

    def levels() -> Levels:
        level, often = 500.0 * MIB, between(rng, 0.0005, 0.02)
        for _ in range(count):
            if rng.random() < often / 10:
                level *= rng.random()
            yield 0.0 if rng.random() < often else level

    return Series(steps_of(levels(), noise=gaussian(rng)), 0)


@negative
def slow_drift_within_noise(rng: random.Random, count: int) -> Series:
    size = between(rng, 128 * KIB, 4 * MIB)
    levels = (size * number / count for number in range(count))
    return Series(steps_of(levels, noise=gaussian(rng, size)))


@negative
def warm_up(rng: random.Random, count: int) -> Series:
    """Lazy imports and first connections, after what is left out of a process's life."""
    imports = [(rng.expovariate(1 / 40), rng.uniform(0.5, 7) * MIB) for _ in range(6)]
    levels = (
        sum(size for at, size in imports if at <= number) + 2 * MIB * -math.expm1(-number / 30)
        for number in range(count)
    )
    last = int(max(at for at, _ in imports))
    return Series(
        steps_of(levels, age_s=30.0, noise=gaussian(rng)), max(last, _nearly_full(2.0 * MIB, 30))
    )


@negative
def suspended_now_and_then(rng: random.Random, count: int) -> Series:
    steps, shift = [], 0.0
    for step in heavy_tails(rng, count).steps:
        runs = step.runs
        if rng.random() < 0.01:
            shift, runs = shift + 60.0, 0
        steps.append(Step(step.time_s + shift, step.grown, runs, step.age_s))
    return Series(steps, 0)


@negative
def deployments(rng: random.Random, count: int) -> Series:
    """All processes are replaced every half an hour, and each fills its cache anew."""
    size, full, life = between(rng, MIB, 60 * MIB), rng.randrange(12, 240), 360
    steps = []
    for number in range(count):
        age = number % life
        grown = rng.gauss(0.0, NOISE) + (size / full if 6 <= age < full else 0.0)
        steps.append(Step(BEGUN_S + number * STEP_S, grown, 25, age * STEP_S))
    return Series(steps)


@dataclass(frozen=True)
class Leak:
    """``size`` bytes in a ``share`` of runs; what it should be found within, in runs."""

    name: str
    size: float
    share: float
    within_runs: int


LEAKS = (
    Leak("10 KiB a run", 10 * KIB, 1.0, 500),
    Leak("1 KiB a run", KIB, 1.0, 5_000),
    Leak("100 B a run", 100.0, 1.0, 50_000),
    Leak("100 KiB, 1 run in 100", 100 * KIB, 0.01, 10_000),
)


def leak(
    rng: random.Random,
    kind: Leak,
    runs_per_s: float,
    *,
    quiet_steps: int = 0,
    ends: int | None = None,
    noise: float = NOISE,
    floor_every: int = 60,
) -> Iterator[Step]:
    """A worker of one process, without end; it leaks after ``quiet_steps`` until step ``ends``."""
    before, level, floor, number = 0.0, 0.0, 0.0, 0
    while True:
        runs = poisson(rng, runs_per_s * STEP_S)
        if number >= quiet_steps and (ends is None or number < ends):
            level += kind.size * (runs if kind.share == 1.0 else poisson(rng, runs * kind.share))
        seen = level + rng.gauss(0.0, noise)
        collected = None
        if number % floor_every == floor_every - 1:
            collected, floor = level - floor, level
        yield Step(
            BEGUN_S + number * STEP_S,
            seen - before,
            runs,
            60.0 + number * STEP_S,
            collected,
        )
        before, number = seen, number + 1
