"""The gauges of the ranked sites: what is exported, how many, and what disappears."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import WindowKind
from otel_celery_memory.telemetry.events import RankedSite
from otel_celery_memory.telemetry.site_gauges import REMEMBERED_MAX, short_name
from tests.telemetry.payload import Telemetry, in_memory
from tests.unit.reporter.test_record_properties import exported

SITE = RankedSite(
    rank=1,
    name="app/feeds.py:41",
    path="/srv/app/feeds.py",
    line=41,
    function="load",
    stack="",
    via="",
    where="",
    task="app.grow",
    kind=WindowKind.COMPLETE,
    size_bytes=100,
    blocks=2,
    size_change_bytes=100,
    runs=3,
    rate_bytes_per_minute=1_000,
)
SDK_SETS_MAX = 2_000


def telemetry_with(*, own_gauges: bool) -> Telemetry:
    """The SDK asks our reader where it has something itself, as the emitter always sees to."""
    made = in_memory(own_histograms=own_gauges)
    made.meters.get_meter(c.SCOPE, "1").create_counter("always").add(1)
    return made


@pytest.fixture(params=["our gauges", "the SDK's"])
def telemetry(request: pytest.FixtureRequest) -> Iterator[Telemetry]:
    made = telemetry_with(own_gauges=request.param == "our gauges")
    yield made
    made.meters.shutdown()


def rank(telemetry: Telemetry, *sites: RankedSite) -> None:
    telemetry.site_gauges.update(sites, lambda task: task)


def points_of(
    telemetry: Telemetry, metric: c.Metric = c.SITE_SIZE_LEVEL
) -> dict[tuple[str, ...], int]:
    """Value by task, place and window; what has no task is of ``-``."""
    points = telemetry.metrics().get(metric.name, {"points": []})["points"]
    return {
        tuple(point["attributes"].get(name, "-") for name in metric.attributes): point["value"]
        for point in points
    }


OF_SITE = ("app.grow", "app/feeds.py:41", "complete")


def test_a_site_is_exported_with_its_task_place_and_window(telemetry: Telemetry) -> None:
    rank(telemetry, SITE)
    assert points_of(telemetry) == {OF_SITE: 100}
    assert points_of(telemetry, c.SITE_RATE_LEVEL) == {OF_SITE: 1_000}
    assert points_of(telemetry, c.SITE_RUNS_LEVEL) == {OF_SITE: 3}


def test_a_site_is_exported_at_each_collection_until_the_next_ranking(telemetry: Telemetry) -> None:
    rank(telemetry, SITE)
    assert points_of(telemetry) == points_of(telemetry) == {OF_SITE: 100}


def test_a_site_that_another_has_replaced_is_gone_at_the_next_collection(
    telemetry: Telemetry,
) -> None:
    rank(telemetry, SITE)
    points_of(telemetry)
    rank(telemetry, replace(SITE, name="app/feeds.py:44", size_bytes=7))
    assert points_of(telemetry) == {("app.grow", "app/feeds.py:44", "complete"): 7}


@pytest.mark.parametrize("metric", c.SITE_METRICS, ids=lambda metric: metric.name)
def test_a_ranking_without_sites_leaves_no_metric(telemetry: Telemetry, metric: c.Metric) -> None:
    rank(telemetry, SITE)
    telemetry.metrics()
    rank(telemetry)
    assert metric.name not in telemetry.metrics()


def test_a_slice_has_a_size_and_no_rate(telemetry: Telemetry) -> None:
    rank(telemetry, replace(SITE, kind=WindowKind.PARTIAL, rate_bytes_per_minute=None))
    assert points_of(telemetry) == {("app.grow", "app/feeds.py:41", "partial"): 100}
    assert points_of(telemetry, c.SITE_RATE_LEVEL) == {}


def test_a_site_of_no_task_has_no_attribute_for_it(telemetry: Telemetry) -> None:
    rank(telemetry, replace(SITE, task="", kind=WindowKind.PROCESS))
    assert points_of(telemetry) == {("-", "app/feeds.py:41", "process"): 100}


def test_places_that_read_the_same_are_added(telemetry: Telemetry) -> None:
    rank(telemetry, SITE, replace(SITE, path="/elsewhere/app/feeds.py", runs=9, size_bytes=1))
    assert points_of(telemetry) == {OF_SITE: 101}
    assert points_of(telemetry, c.SITE_RATE_LEVEL) == {OF_SITE: 2_000}
    assert points_of(telemetry, c.SITE_RUNS_LEVEL) == {OF_SITE: 9}


def test_a_task_that_is_beyond_the_bound_is_other(telemetry: Telemetry) -> None:
    telemetry.site_gauges.update([SITE, replace(SITE, task="app.b")], lambda task: c.OTHER)
    assert points_of(telemetry) == {("_other", "app/feeds.py:41", "complete"): 200}


def test_sums_of_more_than_64_bits_do_not_stop_the_export(telemetry: Telemetry) -> None:
    large = replace(SITE, size_bytes=2**63, runs=2**70, rate_bytes_per_minute=-(2**65))
    rank(telemetry, large, large)
    assert exported(telemetry) == []
    assert points_of(telemetry) == {OF_SITE: 2**63 - 1}
    assert points_of(telemetry, c.SITE_RATE_LEVEL) == {OF_SITE: -(2**63)}


def test_a_file_whose_name_is_no_utf_8_does_not_stop_the_export(telemetry: Telemetry) -> None:
    rank(telemetry, replace(SITE, name="app/\udcff.py:1"))
    assert exported(telemetry) == []
    assert points_of(telemetry) == {("app.grow", "app/?.py:1", "complete"): 100}


def test_after_more_places_than_the_sdk_keeps_a_new_one_is_still_exported() -> None:
    telemetry = telemetry_with(own_gauges=True)
    for number in range(SDK_SETS_MAX + 100):
        rank(telemetry, replace(SITE, name=f"app/{number}.py:1"))
        telemetry.metrics()
    assert points_of(telemetry) == {("app.grow", f"app/{SDK_SETS_MAX + 99}.py:1", "complete"): 100}
    telemetry.meters.shutdown()


def test_on_a_meter_that_keeps_places_the_first_thousand_have_their_names() -> None:
    telemetry = telemetry_with(own_gauges=False)
    for number in range(REMEMBERED_MAX + 2):
        rank(telemetry, replace(SITE, name=f"app/{number}.py:1"))
    rank(
        telemetry,
        replace(SITE, name="app/0.py:1"),
        *(replace(SITE, name=f"new/{number}.py:1", task=f"t{number % 2}") for number in range(3)),
    )
    assert points_of(telemetry) == {
        ("app.grow", "app/0.py:1", "complete"): 100,
        ("t0", "_other", "complete"): 200,
        ("t1", "_other", "complete"): 100,
    }
    telemetry.meters.shutdown()


def test_places_that_a_meter_keeps_fit_into_the_sdk_s_bound() -> None:
    ranked = (WindowKind.COMPLETE, WindowKind.FIRST_RUN, WindowKind.PROCESS, WindowKind.PARTIAL)
    # The names, `_other`, and none.
    others = (c.TASK_NAMES_MAX + 2) * len(ranked)
    assert REMEMBERED_MAX + others <= SDK_SETS_MAX


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app/feeds.py:41", "app/feeds.py:41"),
        ("a" * 200, "a" * 200),
        ("a" * 300 + "/feeds.py:41", "…" + "a" * 185 + "/feeds.py:41"),
        # Never half a letter: 197 bytes have room for 98 of two bytes.
        ("ä" * 300, "…" + "ä" * 98),
    ],
    ids=["short", "just fits", "long", "letters of two bytes"],
)
def test_a_long_name_is_cut_to_its_end(name: str, expected: str) -> None:
    assert short_name(name) == expected
    assert len(expected.encode()) <= 200
