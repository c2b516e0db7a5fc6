"""Delivery in process that fails is switched off once, aloud, and the metrics say so."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import ProcessUp
from otel_celery_memory.reporter.in_process import InProcessSink
from otel_celery_memory.settings import Settings
from otel_celery_memory.telemetry.pipeline import Pipeline
from tests.telemetry.payload import in_memory, points
from tests.unit.examples import finished


def test_delivery_that_fails_is_switched_off_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = in_memory(own_histograms=True)
    meter = telemetry.meters.get_meter(c.SCOPE, "1")
    sink = InProcessSink(
        Pipeline(meter, telemetry.logger, telemetry.histogram, lambda: None), Settings()
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
