"""An export that an endpoint accepted acknowledges the records of it, and no others."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from threading import Lock, Thread
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData

from demo.receiver import Receiver
from otel_celery_memory.telemetry.export_checkpoints import TaskHistogramReader
from otel_celery_memory.telemetry.pipeline import open_pipeline
from tests.processes import wait_until
from tests.telemetry.payload import MemoryExporter, metrics_payload


class Records:
    """Applies records, as the reporter does."""

    def __init__(self) -> None:
        self.applying = Lock()
        self.applied = 0
        self.acknowledged: list[int] = []

    def position(self) -> int:
        return self.applied

    def acknowledge(self, position: int) -> None:
        self.acknowledged.append(position)


class TroubledExporter(MemoryExporter):
    """Fails, raises, or hangs until it is let go."""

    result: Any = MetricExportResult.SUCCESS

    def __init__(self) -> None:
        super().__init__()
        self.gate = Lock()

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any
    ) -> MetricExportResult:
        super().export(metrics_data)
        with self.gate:
            if isinstance(self.result, Exception):
                raise self.result
            found: MetricExportResult = self.result
            return found


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def exporter() -> TroubledExporter:
    return TroubledExporter()


@pytest.fixture
def meters(records: Records, exporter: TroubledExporter) -> Iterator[MeterProvider]:
    reader = TaskHistogramReader(
        exporter, export_interval_millis=math.inf, histograms=[], checkpoints=records
    )
    made = MeterProvider([reader], shutdown_on_exit=False)

    def observe(_: CallbackOptions) -> list[Observation]:
        assert records.applying.locked()
        return [Observation(records.applied)]

    made.get_meter("scope").create_observable_counter("applied", [observe])
    yield made
    made.shutdown()


def exported(exporter: TroubledExporter) -> int:
    (point,) = metrics_payload(exporter.exported[-1])["applied"]["points"]
    value: int = point["value"]
    return value


def test_a_collection_and_its_checkpoint_cover_the_same_records(
    records: Records, exporter: TroubledExporter, meters: MeterProvider
) -> None:
    for records.applied in (3, 8):
        meters.force_flush()
        assert exported(exporter) == records.applied
    assert records.acknowledged == [3, 8]
    assert not records.applying.locked()


@pytest.mark.parametrize("result", [MetricExportResult.FAILURE, RuntimeError("no")])
def test_an_export_that_failed_is_not_acknowledged(
    records: Records, exporter: TroubledExporter, meters: MeterProvider, result: Any
) -> None:
    exporter.result = result
    meters.force_flush()
    assert (records.acknowledged, records.applying.locked()) == ([], False)


def test_records_are_applied_while_an_endpoint_hangs(
    records: Records, exporter: TroubledExporter, meters: MeterProvider
) -> None:
    with exporter.gate:
        flush = Thread(target=meters.force_flush)
        flush.start()
        wait_until("the export hangs", lambda: exporter.exported, 10)
        assert records.applying.acquire(timeout=10)
        records.applied = 5
        records.applying.release()
    flush.join(10)
    assert (exported(exporter), records.acknowledged) == (0, [0])


def test_a_collection_requested_during_an_export_is_made_after_it(
    records: Records, exporter: TroubledExporter, meters: MeterProvider
) -> None:
    flushes = [Thread(target=meters.force_flush) for _ in range(2)]
    with exporter.gate:
        flushes[0].start()
        wait_until("the export hangs", lambda: exporter.exported, 10)
        flushes[1].start()
        time.sleep(0.1)
        with records.applying:
            records.applied = 5
    for flush in flushes:
        flush.join(10)
    assert (exported(exporter), records.acknowledged) == (5, [0, 5])


def test_nothing_is_collected_while_a_record_is_applied(
    records: Records, exporter: TroubledExporter, meters: MeterProvider
) -> None:
    with records.applying:
        flush = Thread(target=meters.force_flush)
        flush.start()
        records.applied = 7
        assert exporter.exported == []
    flush.join(10)
    assert (exported(exporter), records.acknowledged) == (7, [7])


def test_a_pipeline_with_one_endpoint_acknowledges_what_was_exported(records: Records) -> None:
    with Receiver() as receiver:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        with pytest.MonkeyPatch.context() as patched:
            for name, value in {**environ, "NO_PROXY": "127.0.0.1"}.items():
                patched.setenv(name, value)
            pipeline = open_pipeline("w@h", 3_600, environ, checkpoints=records)
            pipeline.meter.create_counter("tasks").add(1)
            records.applied = 4
            pipeline.send_metrics()
            wait_until("the export is acknowledged", lambda: records.acknowledged, 10)
            pipeline.shutdown()
    assert pipeline.checkpointed
    assert records.acknowledged == [4, 4]


@pytest.mark.parametrize(
    ("exporters", "checkpointed"), [("none", False), ("console", True), ("console,console", False)]
)
def test_with_no_endpoint_or_two_nothing_is_acknowledged(
    records: Records, exporters: str, checkpointed: bool
) -> None:
    environ = {"OTEL_METRICS_EXPORTER": exporters, "OTEL_LOGS_EXPORTER": "none"}
    pipeline = open_pipeline("w@h", 3_600, environ, checkpoints=records)
    pipeline.meter.create_counter("tasks").add(1)
    pipeline.shutdown()
    assert (pipeline.checkpointed, bool(records.acknowledged)) == (checkpointed, checkpointed)
