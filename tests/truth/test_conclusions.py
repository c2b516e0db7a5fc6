"""What a person concludes, from answers and telemetry that are made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import otel_celery_memory
from demo.receiver import Event, Point
from otel_celery_memory import conventions as c
from tests.truth.case import ANY, Case, Shape, shapes
from tests.truth.conclusions import (
    RETAINED,
    Seen,
    Told,
    alerting,
    conclude,
    place,
    retained_by_task,
    size_of,
    tables_of,
)

BEGAN_NS, HALF_NS, ENDED_NS = 0, 60 * 10**9, 120 * 10**9
INSPECTED = """\
tracing budget: 0.09 s of 1.7 s of task time in ten minutes, 0 runs aborted

process  pid    RSS       task
main     10689  60.7 MiB  -

task          runs   retained/run  traced runs  traced/run
shop.publish  1,200  5.0 KiB       10           6.3 KiB
shop.healthy  800    0 B           3            1.1 KiB

site         left/run  a minute  runs  of        task
a/feed.py:7  5.1 KiB   3.0 MiB   8     complete  shop.publish
b/lib.py:44  80 B      -         8     partial   shop.publish
... and 3 more"""


def shape(leaks: str | None = "publish", **options: Any) -> Shape:
    lines = ("feed.py:7",) if leaks else ()
    return Shape(Case("a case", leaks, {"publish": 10}, **options), "shop", lines)


def point(metric: str, value: float, at_ns: int, count: int = 0, **attributes: str) -> Point:
    named = {key.replace("_", "."): text for key, text in attributes.items()}
    return Point(metric, "By", {}, named, 0, at_ns, value, count)


def retained(task: str, value: float, at_ns: int, count: int, direction: str = c.GROW) -> Point:
    given = {c.TASK_NAME: f"shop.{task}", c.DIRECTION: direction}
    return replace(point(RETAINED[0], value, at_ns, count), attributes=given)


def measured(task: str, runs: int, at_ns: int) -> Point:
    return replace(point(c.MEASURED.name, runs, at_ns), attributes={c.TASK_NAME: f"shop.{task}"})


def site(rank: int, task: str, line: str, rate: int | None, at_ns: int = ENDED_NS) -> Event:
    attributes = {
        c.SITE_RANK: rank,
        c.SITE_NAME: line,
        c.SITE_SIZE: 500,
        c.SITE_RUNS: 4,
        c.TASK_NAME: f"shop.{task}",
        c.CODE_FILE: f"/srv/{line.partition(':')[0]}",
        **({} if rate is None else {c.SITE_RATE: rate}),
    }
    return Event(c.ALLOCATION_SITE.name, "INFO", "", at_ns, {}, attributes)


TRUE_POINTS = (
    retained("publish", 1e6, HALF_NS, 100),
    retained("publish", 2e6, ENDED_NS, 200),
    measured("publish", 600, HALF_NS),
    measured("publish", 1200, ENDED_NS),
)
TRUE = Seen(
    INSPECTED,
    TRUE_POINTS,
    (site(1, "publish", "a/feed.py:7", 3 << 20),),
    {"shop.publish": 1200},
    120.0,
    BEGAN_NS,
    ENDED_NS,
    # A spike is in no median.
    tuple((at_s, at_s * 50_000 + (8 << 20) * (at_s in (40, 116))) for at_s in range(0, 120, 2)),
)
FLAT = ((0.0, 60 << 20), (60.0, 60 << 20), (120.0, 60 << 20))


def test_tables_are_read_by_their_headings() -> None:
    tables = tables_of(INSPECTED)
    assert list(tables) == ["process", "task", "site"]
    assert tables["task"][0]["retained/run"] == "5.0 KiB"
    assert tables["site"][1]["a minute"] == "-"
    assert len(tables["site"]) == 2


@pytest.mark.parametrize(
    ("text", "size"), [("0 B", 0), ("1.5 KiB", 1536), ("-2.0 MiB", -(2 << 20)), ("-", None)]
)
def test_a_size_for_people_is_read_back(text: str, size: float | None) -> None:
    assert size_of(text) == size


def test_the_right_task_and_line_are_right_wherever_their_file_is() -> None:
    concluded = conclude(shape(), TRUE)
    assert concluded.inspect == concluded.telemetry == Told("publish", "feed.py:7")
    assert concluded.accused == ()
    assert concluded.right
    assert place("/srv/a/feed.py:7") == "feed.py:7"


def test_whoever_comes_before_the_leak_is_concluded_instead() -> None:
    events = (
        site(1, "publish", "b/lib.py:44", 9 << 20),
        site(2, "publish", "a/feed.py:7", 3 << 20),
    )
    concluded = conclude(shape(), replace(TRUE, events=events))
    assert concluded.telemetry == Told("publish", "lib.py:44")
    assert not concluded.right


def test_where_no_line_claims_as_much_the_first_of_the_task_is_read() -> None:
    """A library of C takes what an object of a hundred bytes holds."""
    events = (
        site(1, "healthy", "b/lib.py:44", 900),
        site(2, "publish", "a/feed.py:7", 800),
        site(3, "publish", "a/feed.py:9", 700),
    )
    inspected = INSPECTED.replace("5.1 KiB   3.0 MiB   8 ", "80 B      4.0 KiB   8 ")
    concluded = conclude(shape(), replace(TRUE, events=events, inspected=inspected))
    assert concluded.inspect == concluded.telemetry == Told("publish", "feed.py:7")
    assert conclude(shape(None), replace(TRUE, events=events, points=())).telemetry == Told(
        None, None
    )


def test_what_is_not_shown_beside_the_line_is_not_right() -> None:
    class Nowhere:
        def missing(self, seen: Seen) -> Iterator[str]:
            yield "inspect: an exit"

    concluded = conclude(shape(shows=(Nowhere(),)), TRUE)
    assert concluded.missing == ("inspect: an exit",)
    assert not concluded.right


def test_the_last_ranking_counts_for_the_line_and_all_of_them_for_accusations() -> None:
    former = site(1, "healthy", "c/json.py:3", 1 << 20, HALF_NS)
    concluded = conclude(shape(), replace(TRUE, events=(former, *TRUE.events)))
    assert concluded.telemetry == Told("publish", "feed.py:7")
    assert [claim.text for claim in concluded.accused] == [
        "event: healthy json.py:3, 1,024.0 KiB a minute"
    ]


def test_what_processes_grow_by_is_told_without_warm_up_and_spikes() -> None:
    assert TRUE.grown_bytes_per_minute == pytest.approx(3e6, rel=0.05)
    warm = tuple((at_s, 60 << 20 if at_s > 10 else 30 << 20) for at_s in range(0, 120, 2))
    assert replace(TRUE, rss=warm).grown_bytes_per_minute == 0


def test_a_claim_within_a_hundredth_of_the_growth_accuses_nobody() -> None:
    events = (*TRUE.events, site(2, "healthy", "c/json.py:3", 29_000))
    assert conclude(shape(), replace(TRUE, events=events)).right
    flat = replace(TRUE, events=events, rss=FLAT)
    assert not conclude(shape(), flat).right


def test_a_row_without_a_rate_claims_what_was_left_in_all_that_was_seen() -> None:
    event = site(1, "healthy", "c/json.py:3", None)
    flat = replace(TRUE, events=(event,), rss=FLAT)
    # 4 parts of 500 B in two minutes are less than what is allowed.
    assert conclude(shape(), flat).accused == ()
    much = replace(event, attributes={**event.attributes, c.SITE_SIZE: 5_000})
    (claim,) = conclude(shape(), replace(flat, events=(much,))).accused
    assert claim.bytes_per_minute == 10_000


def test_a_line_of_ours_is_an_accusation_whosoever_task_it_is() -> None:
    ours = f"{otel_celery_memory.__path__[0]}/worker/pipe.py"
    event = site(1, "publish", "worker/pipe.py:9", 9 << 20)
    event = replace(event, attributes={**event.attributes, c.CODE_FILE: ours})
    assert [claim.ours for claim in conclude(shape(), replace(TRUE, events=(event,))).accused] == [
        True
    ]


def test_nobody_is_right_where_nobody_leaks_and_nothing_is_claimed() -> None:
    nothing = replace(TRUE, inspected="", events=(), points=())
    assert conclude(shape(None), nothing).right
    assert not conclude(shape(), nothing).right
    assert not conclude(shape(None), TRUE).right


def test_a_receiver_that_leaks_accuses_no_task_by_its_line() -> None:
    other = replace(TRUE, events=(site(1, "healthy", "a/feed.py:7", 3 << 20),))
    assert conclude(shape(ANY), other).right


def test_a_second_leak_is_no_accusation() -> None:
    both = replace(TRUE, events=(*TRUE.events, site(2, "note", "a/feed.py:9", 1 << 20)))
    assert conclude(shape(also=("note",)), both).right
    assert not conclude(shape(), both).right


def test_growth_is_that_of_the_second_half_of_each_sampled_run_times_all_runs() -> None:
    shrunk = retained("publish", 2e5, ENDED_NS, 10, c.SHRINK)
    warm = retained("publish", 9e6, ENDED_NS, 1, "warm_up")
    (claim,) = retained_by_task((*TRUE_POINTS, shrunk, warm), BEGAN_NS, ENDED_NS)
    assert claim.bytes_per_minute == pytest.approx(8e5 / 110 * 600)


def test_the_factor_is_that_before_the_first_innocent_task() -> None:
    beside = (
        *TRUE_POINTS,
        retained("healthy", 5e4, ENDED_NS, 100),
        measured("healthy", 600, ENDED_NS),
    )
    concluded = conclude(shape(), replace(TRUE, points=beside))
    # 10,000 B a run in 600 runs, 500 B a run in as many.
    assert concluded.factor == pytest.approx(20)
    assert conclude(shape(), TRUE).factor is None


def test_where_the_task_of_the_first_line_has_no_number_it_is_that_task() -> None:
    unknown = INSPECTED.replace("5.0 KiB ", "-       ")
    alone = tuple(each for each in TRUE_POINTS if "publish" not in str(each.attributes))
    points = (*alone, retained("healthy", 0.0, ENDED_NS, 100), measured("healthy", 600, ENDED_NS))
    concluded = conclude(shape(), replace(TRUE, inspected=unknown, points=points))
    assert concluded.inspect == concluded.telemetry == Told("publish", "feed.py:7")
    # A number says that it keeps nothing.
    nothing = INSPECTED.replace("5.0 KiB ", "0 B     ")
    assert conclude(shape(), replace(TRUE, inspected=nothing)).inspect == Told(None, "feed.py:7")


def test_what_grew_before_half_time_is_no_claim() -> None:
    full = retained("cache", 64e6, HALF_NS, 100), retained("cache", 64e6, ENDED_NS, 200)
    runs = measured("cache", 100, HALF_NS), measured("cache", 200, ENDED_NS)
    assert [c.bytes_per_minute for c in retained_by_task((*full, *runs), BEGAN_NS, ENDED_NS)] == [0]


def leak(metric: c.Metric, value: float, task: str, state: str, site: str = "") -> Point:
    named = {c.TASK_NAME: f"shop.{task}" if task else "", c.SITE_NAME: site}
    attributes = {key: text for key, text in named.items() if text}
    return replace(
        point(metric.name, value, ENDED_NS), attributes={**attributes, c.LEAK_STATE: state}
    )


def test_the_alert_is_for_what_leaks_and_not_for_what_is_suspected_or_has_ended() -> None:
    points = (
        leak(c.LEAK_ACTIVE, 1, "cache", "suspected"),
        leak(c.LEAK_RATE_LEVEL, 9e6, "cache", "suspected"),
        leak(c.LEAK_ACTIVE, 0, "mended", "ended"),
        leak(c.LEAK_ACTIVE, 1, "publish", "leaking", "a/feed.py:7"),
        leak(c.LEAK_RATE_LEVEL, 1e3, "publish", "leaking", "a/feed.py:7"),
        leak(c.LEAK_ACTIVE, 1, "opens", "leaking"),
    )
    claims = alerting(replace(TRUE, points=points))
    assert [(each.task, each.line, each.bytes_per_minute) for each in claims] == [
        ("publish", "feed.py:7", 6e5),
        ("opens", "", 0),
    ]
    concluded = conclude(shape(), replace(TRUE, points=(*TRUE_POINTS, *points)))
    assert [claim.text for claim in concluded.accused] == ["alert: opens, 0.0 KiB a minute"]


def test_an_alert_of_no_task_is_right_at_the_line_that_leaks() -> None:
    alert = leak(c.LEAK_ACTIVE, 1, "", "leaking", "a/feed.py:7")
    assert conclude(shape(), replace(TRUE, points=(*TRUE_POINTS, alert))).right
    other = leak(c.LEAK_ACTIVE, 1, "", "leaking", "a/other.py:1")
    assert not conclude(shape(), replace(TRUE, points=(*TRUE_POINTS, other))).right


def test_every_case_names_a_task_that_it_runs_and_lines_where_they_can_be_told() -> None:
    found = shapes()
    assert len({each.case.name for each in found}) == len(found) > 30
    for each in found:
        assert each.case.leaks in (None, ANY, *each.case.rates), each
        assert bool(each.lines) == (each.case.leaks is not None and each.case.has_line), each
        directory = Path(__file__).parent / "cases"
        assert all((directory / line.partition(":")[0]).exists() for line in each.lines)
