from __future__ import annotations

import math

import pytest

from otel_celery_memory.leaks.forecast import (
    Headroom,
    largest_max_tasks_per_child,
    least_max_memory_per_child,
    time_to_limit,
)
from otel_celery_memory.leaks.verdict import Forecast, Interval

MIB = 1024 * 1024
RATE = Interval(2.0 * MIB, 1.0 * MIB, 4.0 * MIB)


def test_the_nearest_limit_counts() -> None:
    rooms = [
        Headroom("main", "cgroup", 2_000 * MIB, 1_000.0 * MIB),
        Headroom("3", "max_memory_per_child", 200 * MIB, 100.0 * MIB, 0.25),
        Headroom("2", "max_memory_per_child", 200 * MIB, 150.0 * MIB, 0.25),
    ]
    assert time_to_limit(RATE, rooms) == Forecast(
        "3", "max_memory_per_child", 200 * MIB, Interval(200.0, 100.0, 400.0)
    )


def test_a_rate_that_may_be_nothing_may_never_reach_the_limit() -> None:
    found = time_to_limit(Interval(1.0, -1.0, 2.0), [Headroom("main", "host", 100, 10.0)])
    assert found is not None
    assert found.seconds == Interval(10.0, 5.0, math.inf)


def test_a_limit_that_is_passed_is_reached_now() -> None:
    found = time_to_limit(RATE, [Headroom("main", "host", 100, -10.0)])
    assert found is not None
    assert found.seconds == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("middle", [0.0, -1.0, math.nan, math.inf])
def test_what_does_not_grow_has_no_forecast(middle: float) -> None:
    rooms = [Headroom("main", "host", 100, 10.0)]
    assert time_to_limit(Interval(middle, middle, middle), rooms) is None


def test_without_a_limit_there_is_no_forecast() -> None:
    assert time_to_limit(RATE, []) is None
    assert time_to_limit(RATE, [Headroom("main", "host", 100, math.nan)]) is None


def test_children_are_replaced_before_leaks_and_a_healthy_peak_pass_the_limit() -> None:
    rate = Interval(10_000.0, 9_000.0, 12_500.0)
    runs = largest_max_tasks_per_child(500e6, 100e6, 150e6, rate)
    assert runs == 20_000
    assert 100e6 + 150e6 + runs * rate.high <= 500e6


def test_bounds_that_are_unknown_count_as_twice_the_rate() -> None:
    unknown = Interval(100.0, -math.inf, math.inf)
    assert largest_max_tasks_per_child(1_000.0, 100.0, 100.0, unknown) == 4


def test_where_no_run_fits_no_number_is_told() -> None:
    assert largest_max_tasks_per_child(200.0, 100.0, 150.0, Interval(1.0, 1.0, 1.0)) is None
    assert largest_max_tasks_per_child(200.0, 0.0, 0.0, Interval(0.0, 0.0, 0.0)) is None
    assert largest_max_tasks_per_child(math.inf, 0.0, 0.0, RATE) is None


def test_a_child_is_not_replaced_for_its_largest_healthy_run() -> None:
    assert least_max_memory_per_child(500 * MIB, 100 * MIB, 100 * MIB) == pytest.approx(220 * MIB)
    assert least_max_memory_per_child(210 * MIB, 100 * MIB, 100 * MIB) is None
    assert least_max_memory_per_child(500.0, math.nan, 1.0) is None
