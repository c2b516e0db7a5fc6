"""What is sent is what conventions.py promises: names, units, kinds, attributes, bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from otel_celery_memory import conventions as c
from tests.telemetry.expected import EXPECTED_METRICS, EXPECTED_SITE_GAUGES
from tests.telemetry.expected_ends import EXPECTED_AT_ENDS, EXPECTED_REPEATED_EXITS
from tests.telemetry.expected_events import (
    EXPECTED_CENSUSES,
    EXPECTED_LATE_LOSS,
    EXPECTED_LEFT,
    EXPECTED_LOSS,
    EXPECTED_PRESSURE,
    EXPECTED_REPEATED_LOSS,
    EXPECTED_SITES,
    EXPECTED_SNAPSHOTS,
)
from tests.telemetry.expected_leaks import EXPECTED_LEAK_GAUGES, EXPECTED_LEAKS
from tests.telemetry.history import S
from tests.telemetry.payload import Telemetry, in_memory, metrics_of
from tests.telemetry.test_emitter import emitter_on, fed
from tests.unit.examples import finished, left_behind, started

KINDS = {
    "Histogram": "cumulative histogram",
    "Counter": "cumulative counter",
    "UpDownCounter": "cumulative up-down counter",
    "Gauge": "gauge",
}
ALL_METRICS = {
    **EXPECTED_METRICS,
    **EXPECTED_SITE_GAUGES,
    **EXPECTED_LEAK_GAUGES,
    **EXPECTED_AT_ENDS,
    **EXPECTED_REPEATED_EXITS,
}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = in_memory(own_histograms=True)
    yield made
    made.meters.shutdown()


def test_every_metric_that_is_promised_is_sent_and_no_other() -> None:
    assert set(ALL_METRICS) == {metric.name for metric in c.METRICS}


@pytest.mark.parametrize("metric", c.METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_its_unit_its_kind_and_just_its_attributes(metric: c.Metric) -> None:
    sent = ALL_METRICS[metric.name]
    assert (sent["unit"], sent["kind"]) == (metric.unit, KINDS[metric.kind])
    keys = {key for point in sent["points"] for key in point["attributes"]}
    assert keys == set(metric.attributes)


def test_a_metric_s_description_is_its_meaning(telemetry: Telemetry) -> None:
    fed(telemetry).emit_sites(30.0, 6 * S)
    telemetry.metrics()
    sent = {m.name: m.description for m in metrics_of(telemetry.exporter.exported[-1])}
    meanings = {metric.name: metric.meaning for metric in c.METRICS}
    assert sent == {name: meanings[name] for name in sent}


def test_an_event_has_its_severity_and_just_its_attributes() -> None:
    sent = {
        c.PROCESS_LOST: [EXPECTED_LOSS, EXPECTED_LATE_LOSS, EXPECTED_REPEATED_LOSS],
        c.PRESSURE: EXPECTED_PRESSURE,
        c.ALLOCATION_SITE: EXPECTED_SITES,
        c.LEAK: EXPECTED_LEAKS,
        c.DESCENDANTS_LEFT: EXPECTED_LEFT,
        c.SNAPSHOT: EXPECTED_SNAPSHOTS,
        c.CENSUS: EXPECTED_CENSUSES,
    }
    assert set(sent) == set(c.EVENTS)
    for event, payloads in sent.items():
        assert {payload["name"] for payload in payloads} == {event.name}
        severities = " or ".join(sorted({p["severity"][0] for p in payloads}, reverse=True))
        assert severities == event.severities
        assert {key for p in payloads for key in p["attributes"]} == set(event.attributes)


def test_a_verdict_s_body_is_sentences_on_one_line() -> None:
    for payload in EXPECTED_LEAKS:
        assert re.fullmatch(r"[^\n]+\.", payload["body"])


def test_an_event_s_body_is_one_line_for_people() -> None:
    payloads = (
        EXPECTED_LOSS,
        EXPECTED_LATE_LOSS,
        EXPECTED_REPEATED_LOSS,
        *EXPECTED_PRESSURE,
        *EXPECTED_SITES,
    )
    for payload in (*payloads, *EXPECTED_LEFT, *EXPECTED_SNAPSHOTS, *EXPECTED_CENSUSES):
        assert re.fullmatch(r"[^\n]+[^.\n]", payload["body"])


@pytest.mark.parametrize("own_histograms", [True, False])
def test_of_more_than_200_task_names_the_rest_are_other(own_histograms: bool) -> None:
    made = in_memory(own_histograms=own_histograms)
    emitter = emitter_on(made)
    for number in range(250):
        for run in range(2):
            task = f"app.task_{number:03}"
            task_id = f"{number}-{run}"
            emitter.apply(started(1, task_id, task, retained_bytes=1, previous_task=task))
            emitter.apply(left_behind(5, 6, task=task, open_files=7, threads=8, garbage_bytes=9))
            end = finished(
                1,
                task_id,
                task,
                delta_bytes=1,
                peak_bytes=2,
                traced_delta_bytes=3,
                traced_peak_bytes=4,
            )
            emitter.apply(end)
            emitter.emit_tree_peak(end, 5)
    expected = {f"app.task_{number:03}": 2 for number in range(200)} | {"_other": 100}
    metrics = made.metrics()
    made.meters.shutdown()
    for metric in c.TASK_METRICS:
        counts = {
            point["attributes"]["celery.task.name"]: point.get("count", point.get("value"))
            for point in metrics[metric.name]["points"]
        }
        assert counts == expected, metric.name


def test_a_task_whose_name_came_early_keeps_it_however_many_follow(telemetry: Telemetry) -> None:
    emitter = emitter_on(telemetry)
    for number in (0, *range(300), 0):
        emitter.apply(finished(task=f"t{number}"))
    names = {
        point["attributes"]["celery.task.name"]: point["value"]
        for point in telemetry.metrics()["celery.task.memory.measured"]["points"]
    }
    assert (names["t0"], names["_other"], len(names)) == (3, 100, 201)
