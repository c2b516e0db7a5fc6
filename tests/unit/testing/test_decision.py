"""What the levels of a process between its runs are called, in thousands of simulated tests."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from otel_celery_memory.leaks.resource import Resource
from otel_celery_memory.testing.decision import LEAST, STEPS, growing, plan

KIB = 1024
RUNS_EACH = 5
TESTS = 200
"""Of each kind, with fixed seeds."""
Level = Callable[[random.Random], list[float]]
NOISE = 300.0


def noise(rng: random.Random) -> float:
    return rng.gauss(0, NOISE)


def between(rng: random.Random, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(low * (high / low) ** rng.random())


def stands_still(rng: random.Random) -> list[float]:
    return [noise(rng) for _ in range(STEPS + 1)]


def has_heavy_tails(rng: random.Random) -> list[float]:
    """A third of the levels have something large in them that goes again."""
    return [
        500 * rng.paretovariate(1.1) if rng.random() < 0.3 else noise(rng) for _ in range(STEPS + 1)
    ]


def wanders(rng: random.Random) -> list[float]:
    level, levels = 0.0, []
    for _ in range(STEPS + 1):
        level += rng.gauss(0, 2 * KIB)
        levels.append(level)
    return levels


def is_a_sawtooth(rng: random.Random) -> list[float]:
    period, height = rng.randint(2, STEPS // 2), between(rng, KIB, 1024 * KIB)
    begins = rng.randrange(period)
    return [(at + begins) % period / period * height + noise(rng) for at in range(STEPS + 1)]


def rises_now_and_then(rng: random.Random) -> list[float]:
    """Late imports, and connections that are opened when they are wanted first."""
    level, levels = 0.0, []
    for _ in range(STEPS + 1):
        if rng.random() < 3 / STEPS:
            level += between(rng, KIB, 1024 * KIB)
        levels.append(level + noise(rng))
    return levels


def fills_a_cache(rng: random.Random) -> list[float]:
    """It is full when four fifths of the steps are over, or before."""
    full_at, by_step = rng.uniform(0, 0.8 * STEPS), between(rng, 500, 200 * KIB)
    return [min(at, full_at) * by_step + noise(rng) for at in range(STEPS + 1)]


def fills_slower_and_slower(rng: random.Random) -> list[float]:
    half_life, by_step = rng.uniform(3, STEPS / 6), between(rng, KIB, 100 * KIB)
    return [by_step * half_life * (1 - 0.5 ** (at / half_life)) + noise(rng) for at in range(51)]


def leaks(a_run: float, share: float = 1.0) -> Level:
    """So many bytes in this share of the runs."""

    def levels(rng: random.Random) -> list[float]:
        level, found = 0.0, []
        for _ in range(STEPS + 1):
            found.append(level + noise(rng))
            level += a_run * sum(rng.random() < share for _ in range(RUNS_EACH))
        return found

    return levels


def found(level: Level, tests: int = TESTS) -> float:
    """In which share of so many tests the heap is said to grow."""
    series = (level(random.Random(f"{level.__qualname__} {seed}")) for seed in range(tests))
    return sum(bool(growing({Resource.HEAP: each}, RUNS_EACH)) for each in series) / tests


@pytest.mark.parametrize(
    "level",
    [
        *(stands_still, has_heavy_tails, wanders, is_a_sawtooth, rises_now_and_then),
        *(fills_a_cache, fills_slower_and_slower),
    ],
)
def test_what_does_not_grow_in_the_end_fails_in_no_more_than_one_test_of_a_hundred(
    level: Level,
) -> None:
    assert found(level) <= 0.01


@pytest.mark.parametrize("a_run", [100, 1_000, 100_000])
def test_what_each_run_leaves_is_found_always(a_run: float) -> None:
    assert found(leaks(a_run)) == 1.0


def test_what_every_third_run_leaves_is_found_in_four_tests_of_five_or_more() -> None:
    assert found(leaks(1_000, share=0.33)) >= 0.8


def test_what_one_run_in_fifty_leaves_is_not_found_as_the_documentation_says() -> None:
    assert found(leaks(100_000, share=0.02)) <= 0.1


def test_growth_tells_how_much_each_run_leaves_and_since_when() -> None:
    [growth] = growing({Resource.HEAP: leaks(1_000)(random.Random(1))}, RUNS_EACH)
    assert growth.per_run is not None
    assert growth.per_run.low <= 1_000 <= growth.per_run.high
    assert growth.per_run.high < 1_500
    assert growth.since_s < 200


@pytest.mark.parametrize("resource", LEAST)
def test_as_much_as_a_pool_or_an_allocator_may_have_is_no_leak(resource: Resource) -> None:
    rises = [LEAST[resource] * step / STEPS for step in range(STEPS + 1)]
    twice = [2 * each for each in rises]
    grown = [each.resource for each in growing({resource: twice}, RUNS_EACH)]
    assert growing({resource: [0.99 * each for each in rises]}, RUNS_EACH) == ()
    assert grown == [resource]


@pytest.mark.parametrize("runs", [60, 61, 299, 300, 3_000])
def test_all_runs_are_warm_up_or_in_steps_of_equal_length(runs: int) -> None:
    warm_up, steps, each = plan(runs)
    assert warm_up + steps * each == runs
    assert steps == STEPS
    assert warm_up >= runs // 6
