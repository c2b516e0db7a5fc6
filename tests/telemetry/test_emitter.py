"""A fixed list of records, and every metric and event that comes of it, whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.control_page import DropCounts
from otel_celery_memory.ipc.records import ObjectsCounted, ProcessUp, Record, TypeGrown
from otel_celery_memory.probes.limits import Limits
from otel_celery_memory.probes.procfs import ProcessReading
from otel_celery_memory.reporter.capture_assembly import CaptureAssembly, TakenCapture
from otel_celery_memory.reporter.descendants import DescendantsSize
from otel_celery_memory.reporter.emitter import Emitter
from otel_celery_memory.reporter.gauges import ReporterContext
from otel_celery_memory.reporter.limits import Usage
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.state.exits import OomKills
from otel_celery_memory.reporter.state.totals import TaskTotals
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.reporter.symbolizer import CodePlace
from tests.telemetry.expected import (
    EXPECTED_METRICS,
    EXPECTED_SITE_GAUGES,
    EXPECTED_WITHOUT_PROCESSES,
    FIRST_READING,
    counter,
)
from tests.telemetry.expected_ends import EXPECTED_AT_ENDS, EXPECTED_REPEATED_EXITS
from tests.telemetry.expected_events import (
    AGAIN,
    EXPECTED_CENSUSES,
    EXPECTED_LATE_LOSS,
    EXPECTED_LEFT,
    EXPECTED_LOSS,
    EXPECTED_PRESSURE,
    EXPECTED_REPEATED_LOSS,
    EXPECTED_SITES,
    EXPECTED_SNAPSHOTS,
    LATE,
    LEFT,
    WRITTEN,
)
from tests.telemetry.history import FIRST, MAIN, RECORDS, SAMPLED, SECOND, SUCCESSORS, S
from tests.telemetry.payload import Plain, Telemetry, in_memory
from tests.unit.captures.examples import CAPTURE
from tests.unit.examples import finished, left_behind

_OF_RECORDS = ("celery.worker.heap.", "celery.worker.messages")
"""Levels that processes send of themselves."""
LIMITS = Limits(
    cgroup_bytes=1_000,
    cgroup_used_bytes=900,
    rlimit_as_bytes=5_000,
    host_bytes=4_000,
    cgroup_high_bytes=950,
    cgroup_swap_bytes=70,
    cgroup_swap_used_bytes=60,
    rlimit_data_bytes=6_000,
)


@pytest.fixture(params=["the SDK's histograms", "our histograms"])
def telemetry(request: pytest.FixtureRequest) -> Iterator[Telemetry]:
    made = in_memory(own_histograms=request.param == "our histograms")
    yield made
    made.meters.shutdown()


def describe(path: str, line: int) -> CodePlace:
    return CodePlace(path.removeprefix("/srv/") + f":{line}", "load" if line == 41 else None)


def emitter_on(telemetry: Telemetry) -> Emitter:
    """An emitter in fixed surroundings."""
    oom_kills = OomKills(4)
    oom_kills.update(6, 0)
    oom_kills.update(7, 4 * S)
    return Emitter(
        telemetry.meters.get_meter(c.SCOPE, "1"),
        telemetry.logger,
        telemetry.histogram,
        telemetry.site_gauges,
        telemetry.leak_gauges,
        WorkerState(oom_kills),
        TaskTotals(),
        SiteTotals(describe, 10),
        CaptureAssembly("shop@host", 1, describe, None),
        ReporterContext(
            processes=lambda: {
                "0": FIRST_READING,
                "main": ProcessReading(rss_bytes=21),
            },
            limits=lambda: LIMITS,
            limits_used=lambda: [
                Usage("cgroup", None, 300, 1_000),
                Usage("cgroup", None, 600, 1_200),
                Usage("host", None, 2, 8),
            ],
            max_memory_per_child_bytes=3_000,
            frames_dropped=lambda: DropCounts(7, 8, 9),
            reporter_restarts=2,
            tracing_share=lambda: 0.0075,
            switched_off=lambda: ["limits"],
            descendants=lambda: [
                DescendantsSize("0", "app.grow", 2, 1_000, None, 1),
                DescendantsSize("0", None, 1, 234, 5),
                DescendantsSize("1", None, 0, 0, 0),
                DescendantsSize("2", "app.hidden", 3, None, None),
            ],
            descendants_left=lambda: {"app.grow": 500, "app.shrink": 0},
        ),
    )


def fed(telemetry: Telemetry) -> Emitter:
    """The emitter after all records."""
    emitter = emitter_on(telemetry)
    for record in RECORDS:
        emitter.apply(record)
    emitter.emit_tree_peak(finished(FIRST, task="app.grow", span=SAMPLED), 90_000_000)
    return emitter


def test_records_become_exactly_these_metrics(telemetry: Telemetry) -> None:
    fed(telemetry)
    assert telemetry.metrics() == EXPECTED_METRICS


def test_what_a_task_that_keeps_nothing_shows_once_or_twice_is_no_growth(
    telemetry: Telemetry,
) -> None:
    emitter = emitter_on(telemetry)
    for size in [*[0] * 20, 50_000, *[0] * 20, 50_000]:
        emitter.apply(left_behind(size, blocks=size // 100))
    for name in ("celery.task.heap.retained", "celery.task.heap.blocks.retained"):
        (point,) = telemetry.metrics()[name]["points"]
        assert (point["sum"], point["count"]) == (0, 42)


def test_what_a_task_leaks_in_one_run_of_fifty_is_told_whole(telemetry: Telemetry) -> None:
    emitter = emitter_on(telemetry)
    for number in range(3_000):
        size = 1_000_000 if number % 50 == 49 else 0
        emitter.apply(left_behind(size, time_ns=number * S))
    (point,) = telemetry.metrics()["celery.task.heap.retained"]["points"]
    assert (point["sum"], point["count"]) == (60_000_000, 3_000)


def test_a_second_collection_is_the_same_except_for_exemplars(telemetry: Telemetry) -> None:
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
    for end in emitter.state.classify_ended(5 * S, all_now=True):
        emitter.ended(end)
    for record in SUCCESSORS:
        emitter.apply(record)
    assert telemetry.events() == [EXPECTED_LOSS]
    gone = {name for name in EXPECTED_METRICS if name.startswith(_OF_RECORDS)}
    left = {k: v for k, v in EXPECTED_METRICS.items() if k not in gone}
    assert telemetry.metrics() == left | EXPECTED_AT_ENDS | EXPECTED_WITHOUT_PROCESSES


def test_a_loss_that_the_next_start_recovers_is_emitted_and_counted(telemetry: Telemetry) -> None:
    emitter = emitter_on(telemetry)
    emitter.emit_lost(LATE, 3 * S)
    assert telemetry.events() == [EXPECTED_LATE_LOSS]
    (point,) = telemetry.metrics()["celery.worker.process.exits"]["points"]
    assert (point["attributes"], point["value"]) == ({c.SLOT: "0", c.EXIT_REASON: "killed"}, 1)


def test_a_message_that_kills_again_is_counted_by_its_task(telemetry: Telemetry) -> None:
    emitter = emitter_on(telemetry)
    emitter.emit_lost(LATE, 3 * S)
    assert EXPECTED_REPEATED_EXITS.keys().isdisjoint(telemetry.metrics())
    emitter.emit_lost(AGAIN, 4 * S)
    assert telemetry.events() == [EXPECTED_LATE_LOSS, EXPECTED_REPEATED_LOSS]
    metrics = telemetry.metrics()
    assert {name: metrics[name] for name in EXPECTED_REPEATED_EXITS} == EXPECTED_REPEATED_EXITS


def test_pressure_on_the_worker_is_emitted_for_each_process_by_size(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    emitter = fed(telemetry)
    emitter.state.gone(FIRST, 4 * S)
    emitter.emit_pressure(Usage("cgroup", None, 910, 1_000), 4 * S)
    assert telemetry.events() == EXPECTED_PRESSURE
    # The worker's log has a line with the largest.
    assert caplog.messages == [f"otel_celery_memory: {EXPECTED_PRESSURE[0]['body']}"]


def test_pressure_on_one_process_is_emitted_for_that_one(telemetry: Telemetry) -> None:
    emitter = fed(telemetry)
    emitter.emit_pressure(Usage("rlimit_as", SECOND, 95, 100), 4 * S)
    (event,) = telemetry.events()
    assert {key: event["attributes"][key] for key in (c.SLOT, c.LIMIT_KIND, c.TASK_ID)} == {
        c.SLOT: "1",
        c.LIMIT_KIND: "rlimit_as",
        c.TASK_ID: "4",
    }


def test_pressure_is_emitted_for_at_most_the_hundred_largest_processes(
    telemetry: Telemetry,
) -> None:
    emitter = emitter_on(telemetry)
    for pid in range(1, 151):
        emitter.apply(ProcessUp(pid, 0, pid - 1, pid))
    emitter.emit_pressure(Usage("host", None, 95, 100), 4 * S)
    assert [event["attributes"][c.PROCESS_RSS] for event in telemetry.events()] == [
        *range(150, 50, -1)
    ]


def test_processes_that_are_left_behind_become_an_event(telemetry: Telemetry) -> None:
    emitter = emitter_on(telemetry)
    emitter.emit_descendants_left(LEFT, 4 * S)
    emitter.emit_descendants_left(
        replace(LEFT, task_id=None, processes=1, unique_bytes=None), 4 * S
    )
    assert telemetry.events() == EXPECTED_LEFT


def test_sites_become_one_event_each_in_the_order_of_their_rates(telemetry: Telemetry) -> None:
    emitter = fed(telemetry)
    emitter.emit_sites(30.0, 6 * S)
    assert telemetry.events() == EXPECTED_SITES


def test_sites_are_gauges_until_they_leave_the_ranking(telemetry: Telemetry) -> None:
    emitter = fed(telemetry)
    emitter.emit_sites(30.0, 6 * S)
    assert telemetry.metrics() == EXPECTED_METRICS | EXPECTED_SITE_GAUGES
    emitter.sites.reset()
    emitter.emit_sites(30.0, 7 * S)
    assert telemetry.metrics().keys() == EXPECTED_METRICS.keys()


@pytest.mark.parametrize(
    ("file", "error", "expected"),
    [
        (WRITTEN, None, EXPECTED_SNAPSHOTS[0]),
        (None, "the disk is full", EXPECTED_SNAPSHOTS[1]),
        (None, None, EXPECTED_SNAPSHOTS[2]),
    ],
    ids=["written", "not written", "no directory"],
)
def test_a_capture_that_is_complete_becomes_an_event(
    telemetry: Telemetry, file: str | None, error: str | None, expected: Plain
) -> None:
    capture = replace(CAPTURE, reason="remote control", taken_ns=8 * S)
    emitter_on(telemetry).emit_capture(TakenCapture(3, capture, file, error))
    assert telemetry.events() == [expected]


@pytest.mark.parametrize(
    ("task", "records", "expected"),
    [
        (
            "app.sell",
            [
                TypeGrown(101, 3, 10, 10_001, 10_000, 8, 6, "app.Order", "app.SEEN → list[…]"),
                ObjectsCounted(101, 8 * S, 3, 10, 1_000_000, 10_020, 1, 125_000_000, ""),
            ],
            EXPECTED_CENSUSES[0],
        ),
        (
            "",
            [ObjectsCounted(101, 8 * S, 3, 10, 1_000_000, -7, 1, 125_000_000, "")],
            EXPECTED_CENSUSES[1],
        ),
        (
            "",
            [ObjectsCounted(101, 8 * S, 3, 0, 0, 0, 1, 0, "a limit of memory is near")],
            EXPECTED_CENSUSES[2],
        ),
    ],
    ids=["grown", "not grown", "not taken"],
)
def test_what_a_census_has_found_in_a_process_becomes_events(
    telemetry: Telemetry, task: str, records: list[Record], expected: Plain
) -> None:
    emitter = emitter_on(telemetry)
    emitter.apply(ProcessUp(101, 1, 0, 0))
    emitter.censuses.begin(Commands(census=3, task=task))
    for record in records:
        emitter.apply(record)
    assert telemetry.events() == [expected]


def test_before_any_record_only_readings_from_outside_are_exported(
    telemetry: Telemetry,
) -> None:
    emitter_on(telemetry)
    counted = (*c.TASK_METRICS, *c.GC_METRICS, c.TRACING_ABORTED)
    of_records = {metric.name for metric in counted} | {
        name for name in EXPECTED_METRICS if name.startswith(_OF_RECORDS)
    }
    left = {k: v for k, v in EXPECTED_METRICS.items() if k not in of_records}
    none_yet = {c.TRACING_ABORTED.name: counter("{task}", ({}, 0))}
    assert telemetry.metrics() == left | EXPECTED_WITHOUT_PROCESSES | none_yet
    assert telemetry.events() == []


def test_after_a_fork_the_parent_exports_what_it_counted(
    telemetry: Telemetry,
) -> None:
    emitter = fed(telemetry)
    emitter.emit_sites(30.0, 6 * S)
    emitter.reset()
    names = telemetry.metrics().keys()
    assert "celery.task.memory.measured" not in names
    assert not names & EXPECTED_SITE_GAUGES.keys()
    assert not any(name.startswith(_OF_RECORDS) for name in names)
