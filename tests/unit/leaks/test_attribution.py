from __future__ import annotations

import json
import math
import random

import pytest

from otel_celery_memory.leaks.attribution import TaskEvidence, attribute
from tests.zoo.simulated_mixes import (
    INNOCENT,
    MIXES,
    Left,
    fills_a_cache,
    leaks,
    leaks_if_it_fails,
    play,
)

KIB, MIB = 1024, 1024 * 1024
LEAST = 90.0


def evidence(left: Left, samples: int, seed: int = 1) -> TaskEvidence:
    rng, found = random.Random(seed), TaskEvidence()
    for number in range(samples):
        retained, failed = left(rng, number)
        found.add(retained, LEAST, failed)
    return found


@pytest.mark.parametrize("innocent", [each for each in INNOCENT if each is not fills_a_cache])
def test_the_innocent_have_no_evidence_against_them(innocent: Left) -> None:
    assert max(evidence(innocent, 600, seed).e_value for seed in range(20)) < 20


def test_one_run_of_any_size_says_little() -> None:
    found = TaskEvidence()
    for number in range(200):
        found.add(4e9 if number == 100 else 0.0, LEAST)
        assert found.e_value < 20
    assert found.mean.middle == 0


def test_a_leak_in_every_run_is_found_within_a_few_samples() -> None:
    assert evidence(leaks(10 * KIB), 10).e_value > 6_000
    assert evidence(leaks(200.0), 40).e_value > 6_000


def test_a_leak_in_one_run_of_a_hundred_is_found_in_most_series_of_1000_samples() -> None:
    found = [evidence(leaks(100 * KIB, 0.01), 1_000, seed).e_value for seed in range(40)]
    assert sum(each > 60 for each in found) > 30


def test_the_mean_is_what_a_run_leaves_behind() -> None:
    mean = evidence(leaks(100 * KIB, 0.2), 2_000).mean
    assert mean.low < 20 * KIB < mean.high
    assert mean.high - mean.low < 20 * KIB


def test_a_cache_that_is_full_is_forgotten() -> None:
    filled = evidence(lambda _rng, number: (KIB * (number < 500), False), 500)
    assert attribute(500 * KIB, {"t": 500}, {"t": filled}).shares
    for _ in range(450):
        filled.add(0.0, LEAST)
    assert not attribute(500 * KIB, {"t": 950}, {"t": filled}).shares


def test_shares_and_what_is_unexplained_add_up() -> None:
    found = {
        "large": evidence(leaks(9 * KIB), 200),
        "small": evidence(leaks(1 * KIB), 200),
        "nothing": evidence(leaks(0.0), 200),
    }
    runs = dict.fromkeys(found, 1_000)
    told = attribute(12_500 * KIB, runs, found)
    assert [each.task for each in told.shares] == ["large", "small"]
    assert [each.share for each in told.shares] == pytest.approx([0.72, 0.08], abs=0.01)
    assert told.unexplained == pytest.approx(0.2, abs=0.01)
    assert told.shares[0].amount == pytest.approx(9_000 * KIB, rel=0.01)


def test_more_than_has_grown_is_explained_as_all_of_it() -> None:
    told = attribute(900 * KIB, {"t": 100}, {"t": evidence(leaks(10 * KIB), 100)})
    assert [each.share for each in told.shares] == [1.0]
    assert told.unexplained == 0


def test_who_leaves_more_than_anything_has_grown_is_not_accused() -> None:
    found = {"leak": evidence(leaks(KIB), 200), "garbage": evidence(leaks(59 * KIB), 200)}
    told = attribute(1_000 * KIB, {"leak": 1_000, "garbage": 1_000}, found)
    assert [each.task for each in told.shares] == ["leak"]
    assert told.given_back == {"garbage"}


def test_a_leak_of_failing_runs_is_told_with_that() -> None:
    found = {"t": evidence(leaks_if_it_fails(10 * KIB), 500)}
    told = attribute(500 * KIB, {"t": 500}, found)
    assert [each.condition for each in told.shares] == ["in runs that fail"]
    always = {"t": evidence(lambda _rng, number: (KIB, number % 10 == 0), 500)}
    assert [each.condition for each in attribute(500 * KIB, {"t": 500}, always).shares] == [""]


def test_where_nothing_has_grown_nobody_is_accused() -> None:
    found = {"t": evidence(leaks(10 * KIB), 100)}
    for grown in (0.0, -5.0, math.nan):
        assert attribute(grown, {"t": 100}, found).shares == ()


@pytest.mark.parametrize("number", [0, 2])
def test_who_leaks_is_found_in_a_mix(number: int) -> None:
    for seed in range(3):
        account = play(number, seed)
        assert account.found
        assert account.right_condition
        assert account.largest_wrong_share < 0.15
    assert MIXES[number].guilty


def test_what_is_no_number_is_left_out() -> None:
    found = TaskEvidence()
    for value in (math.nan, math.inf, -math.inf):
        found.add(value, LEAST)
    assert (found.samples, found.e_value) == (0, 1.0)
    assert found.mean.low == -math.inf


def test_evidence_is_taken_up_again() -> None:
    one, two = evidence(leaks_if_it_fails(KIB), 77), TaskEvidence()
    two.restore(json.loads(json.dumps(one.state())))
    for found in (one, two):
        found.add(500.0, LEAST, True)
    assert two.state() == one.state()
    assert (two.e_value, two.mean, two.mean_of_failed) == (
        one.e_value,
        one.mean,
        one.mean_of_failed,
    )


@pytest.mark.parametrize("kept", [{}, {"logs": [1.0]}, {"logs": None}])
def test_what_was_kept_by_somebody_else_is_refused(kept: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        TaskEvidence().restore(kept)
