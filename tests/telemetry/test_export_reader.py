"""The reader sends our histograms' points with all others, as preferred."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricsData

from otel_celery_memory.telemetry.export_checkpoints import TaskHistogramReader
from otel_celery_memory.telemetry.metrics import TaskHistogram
from otel_celery_memory.telemetry.providers import wants_delta, wants_exponential
from tests.telemetry.payload import MemoryExporter, metrics_payload
from tests.telemetry.test_histogram import OPTIONS, TASKS


class Reading:
    """A reader with one of our histograms beside the SDK's instruments."""

    def __init__(self) -> None:
        self.exporter = MemoryExporter()
        self.histogram = TaskHistogram("ours", **OPTIONS)
        reader = TaskHistogramReader(
            self.exporter, export_interval_millis=math.inf, histograms=[self.histogram]
        )
        self.meters = MeterProvider([reader], shutdown_on_exit=False)
        self.counter = self.meters.get_meter("scope").create_counter("theirs")

    def collect(self) -> MetricsData:
        self.meters.force_flush()
        return self.exporter.exported[-1]


@pytest.fixture
def reading() -> Iterator[Reading]:
    made = Reading()
    yield made
    made.meters.shutdown()


def test_the_reader_adds_our_points_to_what_the_sdk_collected(reading: Reading) -> None:
    reading.counter.add(1)
    reading.histogram.record(7, TASKS[0])
    payload = metrics_payload(reading.collect())
    assert {name: metric["kind"] for name, metric in payload.items()} == {
        "theirs": "cumulative counter",
        "ours": "cumulative histogram",
    }
    assert payload["ours"]["points"][0]["count"] == 1


def test_where_we_have_nothing_the_payload_is_the_sdk_s(reading: Reading) -> None:
    reading.counter.add(1)
    assert list(metrics_payload(reading.collect())) == ["theirs"]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("base2_exponential_bucket_histogram", True),
        ("explicit_bucket_histogram", False),
        ("", False),
    ],
)
def test_exponential_buckets_need_the_sdk_s_histogram(
    monkeypatch: pytest.MonkeyPatch, value: str, wanted: bool
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", value)
    assert wants_exponential(OTLPMetricExporter()) is wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("delta", True), ("LowMemory", True), ("cumulative", False), ("", False)],
)
def test_delta_and_lowmemory_both_mean_histograms_as_deltas(
    monkeypatch: pytest.MonkeyPatch, value: str, wanted: bool
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", value)
    assert wants_delta(OTLPMetricExporter()) is wanted


def test_an_exporter_that_prefers_nothing_wants_neither() -> None:
    assert (wants_delta(object()), wants_exponential(object())) == (False, False)
