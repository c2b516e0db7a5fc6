"""When a limit is reached, and which settings hold until a leak is fixed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_celery_memory.leaks.conclusion import Growing
from otel_celery_memory.leaks.resource import Resource
from otel_celery_memory.leaks.verdict import Interval, Kind, State, Verdict, Where
from otel_celery_memory.reporter.limits import Usage
from otel_celery_memory.reporter.outlook import Outlook

MIB = 1 << 20
GROWING = Growing(
    *(Resource.HEAP, State.LEAKING, 0.0, 100.0 * MIB),
    Interval(1.0 * MIB, 0.5 * MIB, 2.0 * MIB),
    Interval(1.0 * MIB, 0.5 * MIB, 2.0 * MIB),
    *(100, 2),
)
VERDICT = Verdict(
    *(State.LEAKING, Kind.PYTHON, Where.TASK, "t", None, 1.0 * MIB, 100, 2, 0.0, 100.0),
    grown=100.0 * MIB,
)
WORKER = Outlook(
    [Usage("cgroup", None, 400 * MIB, 1_000 * MIB), Usage("host", None, 0, 1 << 40)],
    {10: -1, 11: 0, 12: 1},
    {10: 50 * MIB, 11: 150 * MIB, 12: 160 * MIB},
    healthy_peak_bytes=50 * MIB,
)


def test_the_limit_that_is_reached_first_is_forecast_with_bounds() -> None:
    forecast = WORKER.applied_to(VERDICT, GROWING).forecast
    assert forecast is not None
    assert (forecast.slot, forecast.limit, forecast.limit_bytes) == ("main", "cgroup", 1_000 * MIB)
    assert forecast.seconds == Interval(600, 300, 1_200)


def test_what_is_copied_ends_by_itself_and_reaches_no_limit() -> None:
    copies = replace(VERDICT, kind=Kind.COPY_ON_WRITE, task="")
    assert WORKER.applied_to(copies, GROWING) == copies


def test_of_a_limit_that_each_child_has_the_growth_of_one_child_counts() -> None:
    of_child = Usage("max_memory_per_child", 12, 160 * MIB, 200 * MIB)
    forecast = replace(WORKER, usages=[of_child]).applied_to(VERDICT, GROWING).forecast
    assert forecast is not None
    assert (forecast.slot, forecast.seconds.middle) == ("1", 80)


def test_the_settings_leave_each_child_its_part_of_the_room() -> None:
    verdict = WORKER.applied_to(VERDICT, GROWING)
    # 600 MiB are left and 100 MiB have been grown by: 350 for each child, less a run's peak.
    assert verdict.max_tasks_per_child == (350 - 50) // 2
    # 150 MiB less what it has grown by, and a run's peak, with a tenth to spare.
    assert verdict.max_memory_per_child_bytes == (100 + 50) * MIB * 11 // 10


def test_a_child_is_let_have_what_it_came_up_with_however_much_has_grown_elsewhere() -> None:
    worker = replace(WORKER, started_bytes=120 * MIB)
    for growing in (GROWING, replace(GROWING, grown=2_000.0 * MIB)):
        told = worker.applied_to(VERDICT, growing).max_memory_per_child_bytes
        assert told == pytest.approx((120 + 50) * MIB * 1.1)


def test_where_the_limit_is_far_no_setting_is_told() -> None:
    slow = replace(GROWING, rate_per_s=Interval(100, 90, 110))
    verdict = WORKER.applied_to(VERDICT, slow)
    assert verdict.forecast is not None
    assert (verdict.max_tasks_per_child, verdict.max_memory_per_child_bytes) == (None, None)


def test_what_is_counted_has_no_forecast_in_bytes() -> None:
    files = replace(VERDICT, kind=Kind.FILE_DESCRIPTORS)
    assert WORKER.applied_to(files, GROWING) == files


def test_without_a_limit_nothing_is_forecast() -> None:
    assert replace(WORKER, usages=[]).applied_to(VERDICT, GROWING) == VERDICT
