"""Delivery in process: switched off once, aloud, where it fails; sites on any provider."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import NoReturn

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import ProcessUp, Record
from otel_celery_memory.probes import urgent_signal
from otel_celery_memory.probes.urgent_signal import Alarm
from otel_celery_memory.reporter.in_process import InProcessSink, given_destination
from otel_celery_memory.settings import Settings
from otel_celery_memory.telemetry.pipeline import Pipeline
from tests.telemetry.payload import in_memory, points
from tests.unit.examples import finished, site, window


def test_delivery_that_fails_is_switched_off_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = in_memory(own_histograms=True)
    meter = telemetry.meters.get_meter(c.SCOPE, "1")
    sink = InProcessSink(
        Pipeline(
            meter,
            telemetry.logger,
            telemetry.histogram,
            telemetry.site_gauges,
            telemetry.leak_gauges,
            lambda: None,
        ),
        Settings(warm_up=0),
    )
    sink.send(ProcessUp(os.getpid(), 0, 3, 1_000))
    asked = []

    def broken(record: object) -> NoReturn:
        asked.append(record)
        raise RuntimeError("no delivery today")

    monkeypatch.setattr(sink._emitter, "apply", broken)
    for _ in range(3):
        sink.send(finished(os.getpid()))
    assert telemetry.metrics()[c.PARTS_SWITCHED_OFF.name]["points"] == points(
        ({c.PART: "delivery", c.SLOT: "3"}, 1)
    )
    assert (len(asked), len(caplog.records)) == (1, 1)
    assert sink.view()["switched_off"] == [{"slot": "3", "part": "delivery"}]
    telemetry.meters.shutdown()


@pytest.mark.parametrize("own", [True, False], ids=["a pipeline of its own", "given providers"])
def test_sites_are_gauges_until_a_ranking_without_them(own: bool) -> None:
    telemetry = in_memory(own_histograms=own)
    destination = given_destination(telemetry.meters, None)
    if own:
        destination = replace(destination, site_gauges=telemetry.site_gauges)
    now_s = 0.0
    sink = InProcessSink(destination, Settings(sites_interval=1, warm_up=0), lambda: now_s)
    sink.send(window(os.getpid(), "app.grow", sites=1))
    sink.send(site(300, 41, pid=os.getpid(), task="app.grow", blocks=10))
    found = []
    for _ in range(2):
        now_s += 1
        sink.send(finished(os.getpid(), task="app.other"))
        points = telemetry.metrics().get(c.SITE_SIZE_LEVEL.name, {"points": []})["points"]
        found.append(
            [(p["attributes"][c.TASK_NAME], p["attributes"][c.SITE_WINDOW]) for p in points]
        )
    assert found == [[("app.grow", "complete")], []]
    telemetry.meters.shutdown()


def test_a_child_does_not_export_sites_that_its_parent_ranked() -> None:
    telemetry = in_memory(own_histograms=False)
    now_s = 0.0
    sink = InProcessSink(
        given_destination(telemetry.meters, None),
        Settings(sites_interval=1, warm_up=0),
        lambda: now_s,
    )
    sink.send(window(os.getpid(), "app.grow", sites=1))
    sink.send(site(300, 41, pid=os.getpid(), task="app.grow", blocks=10))
    now_s += 1
    sink.send(finished(os.getpid(), task="app.grow"))
    assert c.SITE_SIZE_LEVEL.name in telemetry.metrics()
    sink._forked()
    assert c.SITE_SIZE_LEVEL.name not in telemetry.metrics()
    telemetry.meters.shutdown()


def test_what_the_guard_of_a_traced_run_sends_waits_for_the_next_record() -> None:
    """It rings between any two lines of ours, of the SDK or of the task, which may hold a lock."""
    telemetry = in_memory(own_histograms=False)
    sink = InProcessSink(given_destination(telemetry.meters, None), Settings(warm_up=0))
    alarm = Alarm(lambda: sent.append(sink.send(finished(os.getpid(), task="app.traced"))))
    sent: list[bool] = []
    assert alarm.set(real_s=0.01)
    with sink._lock:
        until_s = time.monotonic() + 10
        while not sent and time.monotonic() < until_s:
            time.sleep(0.01)
    assert sent == [True]
    assert sink.view()["tasks"] == []
    sink.send(finished(os.getpid(), task="app.next"))
    assert {each["name"] for each in sink.view()["tasks"]} == {"app.traced", "app.next"}
    urgent_signal.release()
    telemetry.meters.shutdown()


def test_what_waits_is_the_parent_s_and_not_a_fork_s() -> None:
    telemetry = in_memory(own_histograms=False)
    sink = InProcessSink(given_destination(telemetry.meters, None), Settings(warm_up=0))
    sink._waiting.append(finished(os.getpid(), task="app.of_the_parent"))
    sink._forked()
    sink.send(finished(os.getpid(), task="app.own"))
    assert [each["name"] for each in sink.view()["tasks"]] == ["app.own"]
    telemetry.meters.shutdown()


def test_what_is_sent_in_the_midst_of_another_record_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    telemetry = in_memory(own_histograms=False)
    sink = InProcessSink(given_destination(telemetry.meters, None), Settings(warm_up=0))
    taken: list[str] = []
    taking = sink._emitter.apply

    def interrupted(record: Record) -> None:
        taken.append("begins")
        if len(taken) == 1:
            assert sink.send(finished(os.getpid(), task="app.other"))
        taking(record)
        taken.append("ends")

    monkeypatch.setattr(sink._emitter, "apply", interrupted)
    sink.send(finished(os.getpid(), task="app.task"))
    assert taken == ["begins", "ends"] * 2
    names = {each["name"] for each in sink.view()["tasks"]}
    assert names == {"app.task", "app.other"}
    telemetry.meters.shutdown()
