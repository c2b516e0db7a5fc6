from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import pytest

from otel_celery_memory.leaks.growth import (
    GrowthDetector,
    GrowthRules,
    GrowthVerdict,
    Step,
    counted_rules,
)
from otel_celery_memory.leaks.verdict import Kind, State
from tests.zoo.series import BEGUN_S, LEAKS, NEGATIVES, leak
from tests.zoo.simulated import watch_leak, watch_negative

KIB, MIB = 1024, 1024 * 1024
TEN_KIB, ONE_KIB, HUNDRED_B, RARE = LEAKS


def watch(
    steps: Iterable[Step], rules: GrowthRules | None = None, limit: float | None = None
) -> list[GrowthVerdict]:
    detector = GrowthDetector(rules)
    return [detector.add(step, limit) for step in steps]


def growing(
    count: int,
    each: float,
    *,
    floors: float | None = None,
    garbage: float = 0.0,
    processes: int = 1,
    held: bool = False,
) -> list[Step]:
    """A level that grows evenly, of an hour-old process with a floor each five minutes."""
    steps = [
        Step(BEGUN_S + 5.0 * n, each, 25, 3_600.0 + 5 * n, processes=processes, held=held)
        for n in range(count)
    ]
    return [
        replace(step, floor=floors, garbage=garbage) if n % 60 == 59 else step
        for n, step in enumerate(steps)
    ]


def states(verdicts: Iterable[GrowthVerdict]) -> list[State | None]:
    """Each state once, in order."""
    found: list[State | None] = []
    for verdict in verdicts:
        if not found or found[-1] != verdict.state:
            found.append(verdict.state)
    return found


def missing(verdicts: list[GrowthVerdict]) -> str:
    return "; ".join(verdicts[-1].reasons)


@pytest.mark.parametrize("name", NEGATIVES)
def test_what_is_no_leak_is_never_called_one(name: str) -> None:
    assert [watch_negative(name, 720, seed).leaking for seed in range(4)] == [None] * 4


@pytest.mark.parametrize(
    "name", ["plateau_with_noise", "heavy_tails", "spikes_of_300_mb", "counters_that_go_back"]
)
def test_what_stands_still_is_not_even_suspected(name: str) -> None:
    assert sum(watch_negative(name, 720, seed).suspicions for seed in range(5)) == 0


@pytest.mark.parametrize("name", ["cache_fills_linearly", "deque_with_a_bound"])
def test_the_suspicion_of_a_cache_ends_within_ten_minutes_after_it_is_full(name: str) -> None:
    for seed in range(5):
        seen = watch_negative(name, 720, seed)
        assert seen.suspicions == 1
        assert seen.late_to_end is not None
        assert seen.late_to_end <= 120


@pytest.mark.parametrize(
    ("kind", "runs_per_s"),
    [(TEN_KIB, 1), (TEN_KIB, 10), (ONE_KIB, 1), (ONE_KIB, 30), (HUNDRED_B, 10), (RARE, 10)],
)
def test_a_leak_is_suspected_within_its_runs(kind: object, runs_per_s: float) -> None:
    assert kind in LEAKS
    leaky = next(each for each in LEAKS if each == kind)
    for seed in range(3):
        found = watch_leak(leaky, runs_per_s, 1_000, seed)
        assert found.suspected_runs is not None
        assert found.suspected_runs <= leaky.within_runs


def test_a_leak_is_told_once_a_cache_of_64_mib_is_ruled_out() -> None:
    verdicts = watch(growing(1_000, 100 * KIB, floors=6_000.0 * KIB))
    assert states(verdicts) == [None, State.SUSPECTED, State.LEAKING]
    first = next(each for each in verdicts if each.state is State.LEAKING)
    assert 64 * MIB <= first.grown <= 72 * MIB
    assert first.rate is not None
    assert first.rate.low <= 4 * KIB <= first.rate.high
    assert first.since_s == pytest.approx(BEGUN_S, abs=60)


def test_a_tenth_of_a_small_limit_is_more_than_a_cache_may_fill() -> None:
    steps = growing(600, 100 * KIB, floors=6_000.0 * KIB)
    verdicts = watch(steps, limit=200 * MIB)
    first = next(each for each in verdicts if each.state is State.LEAKING)
    assert 20 * MIB <= first.grown <= 28 * MIB


def test_each_process_may_have_a_cache() -> None:
    verdicts = watch(growing(1_000, 100 * KIB, floors=6_000.0 * KIB, processes=4))
    assert states(verdicts) == [None, State.SUSPECTED]
    assert "a cache of 256.0 MiB may still be filling" in missing(verdicts)


def test_what_each_process_copies_once_is_not_even_suspected() -> None:
    rules = GrowthRules(Kind.COPY_ON_WRITE, collectable=False, least_grown_each=32 * MIB)
    assert states(watch(growing(60, 2 * MIB, processes=4), rules)) == [None]
    assert State.SUSPECTED in states(watch(growing(60, 2 * MIB, processes=1), rules))


def test_growth_that_full_collections_do_not_confirm_may_be_garbage() -> None:
    verdicts = watch(growing(1_000, 100 * KIB, floors=10.0 * KIB))
    assert states(verdicts) == [None, State.SUSPECTED]
    assert "it may be garbage" in missing(verdicts)


def test_growth_that_full_collections_free_is_garbage_whoever_seems_to_hold_it() -> None:
    steps = growing(1_000, 100 * KIB, floors=10.0 * KIB, garbage=5_990.0 * KIB, held=True)
    verdicts = watch(steps)
    assert states(verdicts) == [None, State.SUSPECTED]
    assert "full collections free half of it or more" in missing(verdicts)


def test_a_full_collection_decides_about_what_had_come_until_then() -> None:
    """On a slow machine there may be two in the first minutes, and none afterwards."""
    steps = growing(1_000, 100 * KIB, floors=6_000.0 * KIB)
    steps[130:] = [replace(step, floor=None) for step in steps[130:]]
    verdicts = watch(steps)
    assert states(verdicts) == [None, State.SUSPECTED, State.LEAKING]


def test_growth_whose_holder_is_known_by_name_waits_for_no_full_collection() -> None:
    verdicts = watch(growing(1_000, 300 * KIB, held=True))
    told = next(number for number, each in enumerate(verdicts) if each.state is State.LEAKING)
    assert told <= 260


def test_without_a_full_collection_a_leak_waits_for_an_hour() -> None:
    verdicts = watch(growing(1_000, 300 * KIB))
    told = next(number for number, each in enumerate(verdicts) if each.state is State.LEAKING)
    assert 700 <= told <= 740
    assert "full collections have not confirmed it yet" in "; ".join(verdicts[500].reasons)


def test_what_slows_down_is_no_leak() -> None:
    sizes = [100 * MIB * math.exp(-n / 240) / 240 for n in range(360)]
    steps = [Step(BEGUN_S + 5 * n, size, 25, 4e3, size) for n, size in enumerate(sizes)]
    verdicts = watch(steps)
    assert State.LEAKING not in states(verdicts)
    assert "it has slowed down, as a cache does that fills up" in missing(verdicts)


def test_young_processes_may_warm_up() -> None:
    steps = [Step(BEGUN_S + 5 * n, 10.0 * MIB, 25, 100.0, 10.0 * MIB) for n in range(60)]
    verdicts = watch(steps, limit=100.0 * MIB)
    assert State.LEAKING not in states(verdicts)
    assert "its processes are younger than 3 min" in missing(verdicts)


def test_a_reload_that_mends_a_leak_ends_it_and_a_new_leak_is_suspected_anew() -> None:
    rng = random.Random(1)
    leaky = list(islice(leak(rng, TEN_KIB, 10.0, quiet_steps=60, ends=400), 700))
    detector = GrowthDetector()
    verdicts = [detector.add(step) for step in leaky]
    assert states(verdicts) == [None, State.SUSPECTED, State.LEAKING, State.ENDED]
    ended = next(number for number, each in enumerate(verdicts) if each.state is State.ENDED)
    assert 400 < ended <= 400 + 120
    assert "it has not grown for" in missing(verdicts)
    at_s = leaky[-1].time_s
    again = [detector.add(Step(at_s + 5 * n, 500.0 * KIB, 50, 5e3)) for n in range(1, 60)]
    assert states(again) == [State.ENDED, State.SUSPECTED]


def test_an_ended_leak_is_forgotten_after_half_an_hour() -> None:
    steps = growing(100, 100 * KIB, floors=0.0) + [
        Step(BEGUN_S + 5 * n, 0.0, 25, 4e3) for n in range(100, 600)
    ]
    assert states(watch(steps)) == [None, State.SUSPECTED, State.ENDED, None]


def test_what_is_given_back_has_ended() -> None:
    steps = [*growing(100, 100 * KIB), Step(BEGUN_S + 500, -9.9 * MIB, 25, 4e3, 0.0)]
    steps += [Step(BEGUN_S + 505 + 5 * n, 0.0, 25, 4e3) for n in range(3)]
    verdicts = watch(steps)
    assert states(verdicts) == [None, State.SUSPECTED, State.ENDED]
    assert verdicts[-1].reasons == ("what had grown was given back",)


def test_a_worker_that_is_idle_has_not_stopped_leaking() -> None:
    steps = growing(800, 100 * KIB, floors=6_000.0 * KIB) + [
        Step(BEGUN_S + 5 * n, 0.0, 0, 4e3 + 5 * n) for n in range(800, 1_400)
    ]
    assert states(watch(steps)) == [None, State.SUSPECTED, State.LEAKING]


def test_a_rare_leak_is_not_ended_between_two_of_its_runs() -> None:
    steps = islice(leak(random.Random(3), RARE, 3.0, quiet_steps=60), 3_000)
    assert states(watch(steps, limit=300.0 * MIB)) == [None, State.SUSPECTED, State.LEAKING]


def test_descriptors_are_counted() -> None:
    steps = [
        Step(BEGUN_S + 5 * n, 1.0 if n % 4 == 0 else 0.0, 25, 4e3 + 5 * n) for n in range(1_000)
    ]
    verdicts = watch(steps, counted_rules(Kind.FILE_DESCRIPTORS), limit=1_000.0)
    assert states(verdicts) == [None, State.SUSPECTED, State.LEAKING]
    suspected = next(each for each in verdicts if each.state is State.SUSPECTED)
    assert 20 <= suspected.grown <= 25
    assert "a cache of 100 open files may still be filling" in "; ".join(suspected.reasons)


def test_what_is_no_number_is_left_out() -> None:
    detector = GrowthDetector()
    for number in range(100):
        grown = (math.nan, math.inf, 100.0 * KIB)[number % 3]
        verdict = detector.add(Step(BEGUN_S + number * 5, grown, -3, math.inf, math.nan))
    assert verdict.state is State.SUSPECTED
    assert verdict.runs == 0
    assert verdict.rate is None
    assert verdict.rate_per_s is not None
    assert math.isfinite(verdict.grown)


def test_clock_steps_do_not_change_what_is_concluded() -> None:
    steps = growing(300, 100 * KIB, floors=6_000.0 * KIB)
    shifted = [
        replace(step, time_s=step.time_s + (1e6 if n >= 100 else 0) - (2e6 if n >= 200 else 0))
        for n, step in enumerate(steps)
    ]
    one, two = watch(steps)[-1], watch(shifted)[-1]
    assert (one.state, one.grown, one.runs) == (two.state, two.grown, two.runs)
    assert two.now_s - two.since_s == pytest.approx(one.now_s - one.since_s, abs=120)


def test_a_reporter_that_is_restarted_goes_on_with_its_evidence() -> None:
    steps = list(islice(leak(random.Random(2), TEN_KIB, 5.0, ends=1_500), 1_800))
    detector, expected = GrowthDetector(), watch(steps)
    for number, step in enumerate(steps):
        if number % 97 == 50:
            kept = json.loads(json.dumps(detector.state()))
            detector = GrowthDetector()
            detector.restore(kept)
        assert detector.add(step) == expected[number]


@pytest.mark.parametrize("kept", [{}, {"scales": []}, {"scales": [[1, 2]] * 6}])
def test_what_was_kept_by_somebody_else_is_refused(kept: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        GrowthDetector().restore(kept)


def test_what_is_kept_is_bounded() -> None:
    detector = GrowthDetector()
    for step in islice(leak(random.Random(2), RARE, 1.0), 20_000):
        detector.add(step)
    assert len(json.dumps(detector.state())) < 40_000
