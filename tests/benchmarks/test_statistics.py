"""Ratios have intervals, and what a machine is too noisy to tell is said."""

from __future__ import annotations

import random

import pytest

from benchmarks.statistics import Ratio, interval, noise, percentile, ratio, ratio_of


def test_a_ratio_is_that_of_the_sums() -> None:
    assert ratio([(2.0, 1.0), (4.0, 3.0)]) == 1.5


def test_rounds_that_all_say_the_same_have_an_interval_without_width() -> None:
    found = ratio_of([(1.1, 1.0), (2.2, 2.0)])
    assert (found.low, found.high) == pytest.approx((1.1, 1.1))
    assert found.tells


def test_an_interval_has_the_true_ratio_in_nineteen_of_twenty_times() -> None:
    chance = random.Random(7)
    inside = 0
    for _ in range(100):
        pairs = [(chance.gauss(1.2, 0.1), chance.gauss(1.0, 0.1)) for _ in range(40)]
        low, high = interval(pairs)
        inside += low <= 1.2 <= high
    assert inside >= 85


def test_an_interval_is_the_same_when_it_is_drawn_again() -> None:
    pairs = [(1.0 + n / 10, 1.0) for n in range(10)]
    assert interval(pairs) == interval(pairs)


def test_two_workers_that_are_equal_can_tell_one_per_cent() -> None:
    assert noise(Ratio(1.002, 0.995, 1.009)).startswith("differences of 1 % can be told")


@pytest.mark.parametrize(
    ("again", "less_than"),
    [(Ratio(1.0, 0.95, 1.05), "5 %"), (Ratio(1.24, 1.23, 1.25), "24 %")],
    ids=["wide", "another level"],
)
def test_workers_that_should_be_equal_and_are_not_say_what_means_nothing(
    again: Ratio, less_than: str
) -> None:
    said = noise(again)
    assert said.startswith("TOO NOISY to tell 1 %")
    assert f"less than {less_than} means nothing" in said


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (
        50.0,
        99.0,
        100.0,
    )
    assert percentile([3.0], 0.5) == 3.0
