"""A fixed list of records, and every metric and event that comes of it, down to the last value."""

from __future__ import annotations

from typing import Any

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.probes.limits import Limits
from otel_celery_memory.records import (
    Goodbye,
    HeapSampled,
    ProcessDown,
    ProcessExited,
    ProcessReading,
    ProcessUp,
    Record,
    Site,
    SitesWindow,
)
from otel_celery_memory.reporter.emitter import Emitter, Surroundings
from otel_celery_memory.reporter.sites import CodePlace, SiteTotals
from otel_celery_memory.reporter.state import WorkerState
from tests.telemetry.payload import Plain, Telemetry, distribution, in_memory, points
from tests.unit.examples import finished, started

TRACE, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = bytes.fromhex(TRACE + SPAN_ID + "01")
UNSAMPLED = bytes.fromhex(TRACE + SPAN_ID + "00")
MAIN, FIRST, SECOND = 100, 101, 102
S = 1_000_000_000

RECORDS: tuple[Record, ...] = (
    ProcessUp(MAIN, 0, -1, 50_000_000),
    ProcessUp(FIRST, 0, 0, 50_000_000),
    ProcessUp(SECOND, 0, 1, 50_000_000),
    started(FIRST, "1", "app.grow", rss_bytes=50_000_000),
    finished(
        FIRST,
        "1",
        "app.grow",
        start_bytes=50_000_000,
        delta_bytes=70_000,
        peak_bytes=300_000,
        traced_delta_bytes=60_000,
        traced_peak_bytes=250_000,
        span=SAMPLED,
    ),
    SitesWindow(FIRST, 0, 2, "app.grow"),
    Site(FIRST, 60_000, 3, 41, "app.grow", "/srv/app/feeds.py", ""),
    Site(FIRST, 50, 1, 9, "app.grow", "/srv/app/lib.py", "/srv/app/feeds.py:2\n/srv/app/lib.py:9"),
    HeapSampled(FIRST, 0, 1_234, 5_000, 600),
    started(
        FIRST,
        "2",
        "app.shrink",
        rss_bytes=50_065_536,
        retained_bytes=65_536,
        previous_task="app.grow",
    ),
    finished(
        FIRST,
        "2",
        "app.shrink",
        start_bytes=50_065_536,
        delta_bytes=-4_000_000,
        peak_bytes=0,
        span=UNSAMPLED,
        state="FAILURE",
    ),
    ProcessDown(FIRST, 3 * S, 0, 155, 46_000_000, -4_065_536, "max_tasks", "app.shrink"),
    started(SECOND, "3", "app.shared"),
    finished(SECOND, "3", "app.shared", delta_bytes=999, exclusive=0),
    finished(SECOND, "5", "app.grow", delta_bytes=0, peak_bytes=5_000_000_000),
    HeapSampled(SECOND, 0, 4_321, None, None),
    started(SECOND, "4", "app.die", time_ns=2 * S, rss_bytes=60_000_000),
    ProcessExited(SECOND, 0, -9),
    Goodbye(MAIN, 0),
)

GROW = {"celery.task.name": "app.grow"}
SHRINK = {"celery.task.name": "app.shrink"}
UP, DOWN = {"celery.memory.direction": "grow"}, {"celery.memory.direction": "shrink"}
MAIN_SLOT, FIRST_SLOT, SECOND_SLOT = ({"celery.worker.slot": slot} for slot in ("main", "0", "1"))


def exemplar(value: int) -> dict[str, Any]:
    return {"exemplars": [(value, TRACE, SPAN_ID, {})]}


def histogram(*distributions: Plain) -> Plain:
    return {"unit": "By", "kind": "cumulative histogram", "points": list(distributions)}


def level(unit: str, *values: tuple[Plain, int]) -> Plain:
    return {"unit": unit, "kind": "cumulative up-down counter", "points": points(*values)}


def counter(unit: str, *values: tuple[Plain, int]) -> Plain:
    return {"unit": unit, "kind": "cumulative counter", "points": points(*values)}


def measured(task: str, state: str, exclusive: bool) -> Plain:
    return {
        "celery.task.name": task,
        "celery.task.state": state,
        "celery.memory.exclusive": exclusive,
    }


EXPECTED_METRICS = {
    "celery.task.memory.rss.delta": histogram(
        distribution(UP | GROW, [70_000, 0], **exemplar(70_000)),
        distribution(DOWN | SHRINK, [4_000_000]),
    ),
    "celery.task.memory.rss.peak": histogram(
        distribution(GROW, [300_000, 5_000_000_000], **exemplar(300_000)),
        distribution(SHRINK, [0]),
    ),
    "celery.task.memory.rss.retained": histogram(
        distribution(UP | GROW, [65_536]),
        distribution(DOWN | SHRINK, [4_065_536]),
    ),
    "celery.task.memory.traced.delta": histogram(
        distribution(UP | GROW, [60_000], **exemplar(60_000))
    ),
    "celery.task.memory.traced.peak": histogram(distribution(GROW, [250_000], **exemplar(250_000))),
    "celery.task.memory.measured": counter(
        "{task}",
        (measured("app.shared", "SUCCESS", False), 1),
        (measured("app.grow", "SUCCESS", True), 2),
        (measured("app.shrink", "FAILURE", True), 1),
    ),
    "celery.worker.memory": level("By", (FIRST_SLOT, 11), (MAIN_SLOT, 21)),
    "celery.worker.memory.virtual": level("By", (FIRST_SLOT, 12)),
    "celery.worker.memory.swap": level("By", (FIRST_SLOT, 0)),
    "celery.worker.memory.unique": level("By", (FIRST_SLOT, 14)),
    "celery.worker.memory.proportional": level("By", (FIRST_SLOT, 15)),
    "celery.worker.open_files": level("{file}", (FIRST_SLOT, 16)),
    "celery.worker.open_files.limit": level("{file}", (FIRST_SLOT, 17)),
    "celery.worker.memory.limit": level(
        "By",
        ({"celery.memory.limit.kind": "cgroup"}, 1_000),
        ({"celery.memory.limit.kind": "host"}, 4_000),
        ({"celery.memory.limit.kind": "max_memory_per_child"}, 3_000),
    ),
    "celery.worker.memory.cgroup": level("By", ({}, 900)),
    "celery.worker.heap.blocks": level("{block}", (FIRST_SLOT, 1_234), (SECOND_SLOT, 4_321)),
    "celery.worker.heap.malloc.used": level("By", (FIRST_SLOT, 5_000)),
    "celery.worker.heap.malloc.free": level("By", (FIRST_SLOT, 600)),
    "celery.memory.frames.dropped": counter("{frame}", ({}, 7)),
    "celery.memory.reporter.restarts": counter("{restart}", ({}, 2)),
}

EXPECTED_EXITS = counter(
    "{process}",
    ({"celery.worker.exit.reason": "killed", **SECOND_SLOT}, 1),
    ({"celery.worker.exit.reason": "max_tasks", **FIRST_SLOT}, 1),
    ({"celery.worker.exit.reason": "shutdown", **MAIN_SLOT}, 1),
)

EXPECTED_LOSS = {
    "name": "celery.worker.process_lost",
    "severity": ("ERROR", 17),
    "body": (
        "worker process 1 (pid 102) was lost in app.die [4]: killed, RSS last seen 60,000,000 bytes"
    ),
    "time_ns": (5 * S, 5 * S),
    "attributes": {
        "celery.worker.slot": "1",
        "process.pid": 102,
        "celery.worker.exit.reason": "killed",
        "celery.worker.exit.signal": 9,
        "celery.worker.process.rss": 60_000_000,
        "celery.worker.process.rss_peak": 5_000_001_000,
        "celery.task.name": "app.die",
        "celery.task.id": "4",
        "celery.task.age": 3.0,
        "celery.task.memory.rss.start": 60_000_000,
    },
    "span": (0, 0),
}


def site_event(rank: int, body: str, **attributes: Any) -> Plain:
    return {
        "name": "celery.memory.allocation_site",
        "severity": ("INFO", 9),
        "body": body,
        "time_ns": (6 * S, 6 * S),
        "attributes": {
            "celery.memory.site.rank": rank,
            "celery.task.name": "app.grow",
            "celery.memory.site.runs": 1,
            **attributes,
        },
        "span": (0, 0),
    }


EXPECTED_SITES = [
    site_event(
        1,
        "app/feeds.py:41 left 60,000 bytes in 3 blocks alive in each of 1 traced runs of app.grow",
        **{
            "celery.memory.site.name": "app/feeds.py:41",
            "code.file.path": "/srv/app/feeds.py",
            "code.line.number": 41,
            "code.function.name": "load",
            "celery.memory.site.size": 60_000,
            "celery.memory.site.blocks": 3,
            "celery.memory.site.size_change": 60_000,
            "celery.memory.site.rate": 240_000,
        },
    ),
    site_event(
        2,
        "app/lib.py:9 left 50 bytes in 1 blocks alive in each of 1 traced runs of app.grow",
        **{
            "celery.memory.site.name": "app/lib.py:9",
            "code.file.path": "/srv/app/lib.py",
            "code.line.number": 9,
            "code.stacktrace": "/srv/app/feeds.py:2\n/srv/app/lib.py:9",
            "celery.memory.site.size": 50,
            "celery.memory.site.blocks": 1,
            "celery.memory.site.size_change": 50,
            "celery.memory.site.rate": 200,
        },
    ),
]


@pytest.fixture(params=["the SDK's histograms", "our histograms"])
def telemetry(request: pytest.FixtureRequest) -> Any:
    made = in_memory(own_histograms=request.param == "our histograms")
    yield made
    made.meters.shutdown()


def describe(path: str, line: int) -> CodePlace:
    return CodePlace(path.removeprefix("/srv/") + f":{line}", "load" if line == 41 else None)


def emitter_on(telemetry: Telemetry) -> Emitter:
    """An emitter in fixed surroundings."""
    return Emitter(
        telemetry.meters.get_meter(c.SCOPE, "1"),
        telemetry.logger,
        telemetry.histogram,
        WorkerState(),
        SiteTotals(describe, 10),
        Surroundings(
            processes=lambda: {
                "0": ProcessReading(11, 12, 0, 14, 15, 16, 17),
                "main": ProcessReading(21),
            },
            limits=lambda: Limits(cgroup_bytes=1_000, cgroup_used_bytes=900, host_bytes=4_000),
            max_memory_per_child_bytes=3_000,
            frames_dropped=lambda: 7,
            reporter_restarts=2,
        ),
    )


def fed(telemetry: Telemetry) -> Emitter:
    """The emitter after all records."""
    emitter = emitter_on(telemetry)
    for record in RECORDS:
        emitter.apply(record)
    return emitter


def test_records_become_exactly_these_metrics(telemetry: Telemetry) -> None:
    fed(telemetry)
    assert telemetry.metrics() == EXPECTED_METRICS


def test_a_second_collection_tells_the_same_but_for_the_exemplars(telemetry: Telemetry) -> None:
    fed(telemetry)
    telemetry.metrics()
    again = telemetry.metrics()
    exemplars = [
        point["exemplars"] for m in again.values() for point in m["points"] if "exemplars" in point
    ]
    assert not any(exemplars)
    assert again.keys() == EXPECTED_METRICS.keys()
    for name in EXPECTED_METRICS.keys() - {metric.name for metric in c.TASK_METRICS}:
        assert again[name] == EXPECTED_METRICS[name]


def test_ends_of_processes_become_a_count_each_and_an_event_for_a_loss(
    telemetry: Telemetry,
) -> None:
    emitter = fed(telemetry)
    for pid in (MAIN, FIRST, SECOND):
        emitter.state.gone(pid, 5 * S)
    for end in emitter.state.judge(5 * S, all_now=True):
        emitter.ended(end)
    assert telemetry.events() == [EXPECTED_LOSS]
    metrics = telemetry.metrics()
    assert metrics.pop("celery.worker.process.exits") == EXPECTED_EXITS
    gone = {name for name in EXPECTED_METRICS if name.startswith("celery.worker.heap.")}
    assert metrics == {k: v for k, v in EXPECTED_METRICS.items() if k not in gone}


def test_sites_become_one_event_each_in_the_order_of_their_rates(telemetry: Telemetry) -> None:
    emitter = fed(telemetry)
    emitter.emit_sites(30.0, 6 * S)
    emitter.emit_sites(30.0, 7 * S)
    assert telemetry.events() == EXPECTED_SITES


def test_before_any_record_only_what_can_be_seen_from_outside_is_told(
    telemetry: Telemetry,
) -> None:
    emitter_on(telemetry)
    of_records = {metric.name for metric in c.TASK_METRICS} | {
        name for name in EXPECTED_METRICS if name.startswith("celery.worker.heap.")
    }
    assert telemetry.metrics() == {k: v for k, v in EXPECTED_METRICS.items() if k not in of_records}
    assert telemetry.events() == []


def test_after_a_fork_what_the_parent_counted_is_the_parent_s_to_tell(
    telemetry: Telemetry,
) -> None:
    fed(telemetry).forget()
    names = telemetry.metrics().keys()
    assert "celery.task.memory.measured" not in names
    assert not any(name.startswith("celery.worker.heap.") for name in names)
