"""A series covers the whole time in bounded room; an interval mostly holds the mean."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from otel_celery_memory.view.series import Batches, Series

GAPS_S = st.lists(st.floats(0.001, 1_000), min_size=1, max_size=300)


@given(GAPS_S)
def test_a_series_has_its_first_and_its_last_value_and_a_bound(gaps_s: list[float]) -> None:
    series, time_s = Series(10), 0.0
    for number, gap_s in enumerate(gaps_s):
        time_s += gap_s
        series.append(time_s, number)
    assert 1 <= len(series) <= 11
    assert series.times_s[0] == gaps_s[0]
    assert (series.times_s[-1], series.values[-1]) == (time_s, len(gaps_s) - 1)
    assert list(series.times_s) == sorted(series.times_s)


def test_points_of_a_long_series_lie_evenly() -> None:
    series = Series(100)
    for number in range(100_000):
        series.append(float(number), 0.0)
    gaps = [
        later - sooner
        for sooner, later in zip(series.times_s[:-2], series.times_s[1:-1], strict=True)
    ]
    assert len(series) > 40
    assert max(gaps) <= 4 * min(gaps)


def test_a_value_that_is_older_than_the_last_is_left_out() -> None:
    series = Series()
    series.append(5.0, 1.0)
    series.append(4.0, 2.0)
    assert list(series.values) == [1.0]


def test_no_interval_is_told_of_few_batches() -> None:
    batches = Batches()
    for _ in range(7):
        batches.add(10, 100)
    assert batches.interval() is None
    batches.add(0, 0)
    assert batches.interval() is None
    batches.add(10, 100)
    assert batches.interval() == (10.0, 10.0)


def test_intervals_hold_the_true_mean_nearly_always() -> None:
    chance = random.Random(1)
    held = 0
    for _ in range(500):
        batches = Batches()
        for _ in range(20):
            runs = chance.randint(1, 10)
            batches.add(runs, sum(chance.gauss(100, 30) for _ in range(runs)))
        low, high = batches.interval() or (0.0, 0.0)
        held += low <= 100 <= high
    assert 450 <= held <= 495
