"""Verdicts as metrics and events: what is exported, how many, and what disappears."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.leaks import words
from otel_celery_memory.leaks.verdict import Forecast, Holder, Interval, Kind, State, Verdict
from otel_celery_memory.telemetry.leak_gauges import short_holder
from tests.telemetry.expected_leaks import (
    ENDED,
    EXPECTED_LEAK_GAUGES,
    EXPECTED_LEAKS,
    LEAKING,
    SUSPECTED,
    VERDICTS,
)
from tests.telemetry.history import S
from tests.telemetry.payload import Plain, Telemetry, in_memory
from tests.telemetry.test_emitter import emitter_on
from tests.unit.reporter.test_record_properties import exported

NAMES = {metric.name for metric in c.LEAK_METRICS}


@pytest.fixture(params=["our gauges", "the SDK's"])
def telemetry(request: pytest.FixtureRequest) -> Iterator[Telemetry]:
    made = in_memory(own_histograms=request.param == "our gauges")
    # The SDK asks our reader where it has something itself, as the emitter always sees to.
    made.meters.get_meter(c.SCOPE, "1").create_counter("always").add(1)
    yield made
    made.meters.shutdown()


def decide(telemetry: Telemetry, *verdicts: Verdict) -> dict[str, Plain]:
    """The metrics of leaks once these are the verdicts."""
    telemetry.leak_gauges.update(verdicts, lambda task: task)
    return leaks_of(telemetry)


def leaks_of(telemetry: Telemetry) -> dict[str, Plain]:
    return {name: each for name, each in telemetry.metrics().items() if name in NAMES}


def values(metric: Plain, attribute: str) -> dict[str, float]:
    """Values by an attribute; what has none is of ``-``."""
    return {point["attributes"].get(attribute, "-"): point["value"] for point in metric["points"]}


def test_verdicts_become_exactly_these_metrics(telemetry: Telemetry) -> None:
    assert decide(telemetry, *VERDICTS) == EXPECTED_LEAK_GAUGES


def test_verdicts_become_exactly_these_events(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    emitter = emitter_on(telemetry)
    for verdict in VERDICTS:
        emitter.emit_leak(verdict, 9 * S)
    monkeypatch.undo()
    time.tzset()
    assert telemetry.events() == EXPECTED_LEAKS


def test_verdicts_stay_until_they_are_replaced_and_are_gone_with_the_next_ones(
    telemetry: Telemetry,
) -> None:
    decide(telemetry, LEAKING)
    before = leaks_of(telemetry)
    assert leaks_of(telemetry) == before
    assert set(before) == NAMES
    assert decide(telemetry) == {}


def test_a_verdict_that_ends_changes_its_attributes_and_has_no_rate(telemetry: Telemetry) -> None:
    decide(telemetry, LEAKING)
    metrics = decide(telemetry, replace(LEAKING, state=State.ENDED))
    assert set(metrics) == {c.LEAK_ACTIVE.name}
    assert values(metrics[c.LEAK_ACTIVE.name], c.LEAK_STATE) == {"ended": 0}


def test_a_suspicion_s_forecast_is_told_while_nothing_leaks(telemetry: Telemetry) -> None:
    metrics = decide(telemetry, SUSPECTED, ENDED)
    assert values(metrics[c.EXHAUSTION.name], c.SLOT) == {"main": 60.0}


def test_of_two_forecasts_of_a_slot_the_nearer_one_is_told(telemetry: Telemetry) -> None:
    sooner = replace(
        LEAKING, kind=Kind.NATIVE, forecast=Forecast("0", "host", 1, Interval(50, 40, 60))
    )
    never = replace(
        LEAKING, kind=Kind.MAPPING, forecast=Forecast("1", "host", 1, Interval(math.inf, 40, 60))
    )
    metrics = decide(telemetry, LEAKING, sooner, never)
    assert values(metrics[c.EXHAUSTION.name], c.SLOT) == {"0": 50.0}


def test_leaks_that_read_the_same_are_added(telemetry: Telemetry) -> None:
    telemetry.leak_gauges.update([LEAKING, replace(LEAKING, task="b")], lambda task: c.OTHER)
    metrics = leaks_of(telemetry)
    assert values(metrics[c.LEAK_RATE_LEVEL.name], c.TASK_NAME) == {"_other": 20_890}
    assert values(metrics[c.LEAK_ACTIVE.name], c.TASK_NAME) == {"_other": 2}


def test_of_more_than_200_places_and_holders_the_rest_are_other(telemetry: Telemetry) -> None:
    assert LEAKING.place is not None
    verdicts = [
        replace(
            LEAKING,
            task=f"t{number % 2}",
            place=replace(LEAKING.place, name=f"app/{number}.py:1"),
            holder=Holder(f"app.HELD_{number}"),
        )
        for number in range(205)
    ]
    for verdict in verdicts:
        decide(telemetry, verdict)
    metrics = decide(telemetry, verdicts[0], *verdicts[200:])
    for attribute, first in ((c.SITE_NAME, "app/0.py:1"), (c.LEAK_HOLDER, "app.HELD_0")):
        assert set(values(metrics[c.LEAK_ACTIVE.name], attribute)) == {first, "_other"}
    assert sum(point["value"] for point in metrics[c.LEAK_ACTIVE.name]["points"]) == 6


@pytest.mark.parametrize(
    ("chain", "label"),
    [
        ("shop.feeds._seen", "shop.feeds._seen"),
        ("a" * 120, "a" * 120),
        ("a" * 121, "a" * 119 + "…"),
        ("app.\udcff", "app.?"),
    ],
    ids=["short", "just fits", "long", "no UTF-8"],
)
def test_a_holder_s_label_is_its_beginning(chain: str, label: str) -> None:
    assert short_holder(chain) == label


def test_numbers_that_otlp_cannot_carry_do_not_stop_the_export(telemetry: Telemetry) -> None:
    wild = [
        replace(LEAKING, task="large", rate=Interval(1e30, 0, 0)),
        replace(LEAKING, task="none", rate=Interval(math.nan, 0, math.inf), explained=math.nan),
    ]
    metrics = decide(telemetry, *wild)
    assert exported(telemetry) == []
    assert values(metrics[c.LEAK_RATE_LEVEL.name], c.TASK_NAME) == {"large": 2**63 - 1}
    emitter = emitter_on(telemetry)
    for each in wild:
        emitter.emit_leak(each, 9 * S)
    assert [c.LEAK_RATE in each["attributes"] for each in telemetry.events()] == [True, False]


def test_verdicts_that_an_emitter_gets_are_its_metrics_until_a_fork(telemetry: Telemetry) -> None:
    emitter = emitter_on(telemetry)
    assert not emitter.leaks_decided
    emitter.leaks = ()
    assert emitter.leaks_decided
    emitter.leaks = (LEAKING,)
    assert emitter.leaks == (LEAKING,)
    assert set(leaks_of(telemetry)) == NAMES
    emitter.reset()
    assert not emitter.leaks
    assert not emitter.leaks_decided
    assert leaks_of(telemetry) == {}


def test_the_log_has_a_line_when_a_leak_begins_and_when_it_ends(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    emitter = emitter_on(telemetry)
    ended = replace(LEAKING, state=State.ENDED)
    with caplog.at_level(logging.WARNING):
        for verdict in (SUSPECTED, LEAKING, replace(LEAKING, runs=9_999), ended, ended):
            emitter.emit_leak(verdict, 9 * S)
    assert caplog.messages == [
        f"otel_celery_memory: {words.sentences(each)}" for each in (LEAKING, ended)
    ]


def test_the_times_of_a_body_are_those_of_the_machine() -> None:
    now_s = 1_800_000_000.0
    expected = datetime.fromtimestamp(now_s, tz=timezone.utc).astimezone().strftime("%H:%M")
    assert words.local_time(now_s) == expected
