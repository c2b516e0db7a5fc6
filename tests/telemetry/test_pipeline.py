"""A pipeline of our own, on a real receiver: the standard variables choose where all goes."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Histogram as SdkHistogram

from otel_celery_memory import __version__
from otel_celery_memory.conventions import BUCKET_BOUNDS_BYTES
from otel_celery_memory.telemetry.metrics import TaskHistogram
from otel_celery_memory.telemetry.pipeline import Pipeline, open_pipeline
from tests.telemetry.receiving import USE, RawReceiver, in_a_process, use

AGGREGATION = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
DELTA, CUMULATIVE = 1, 2


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawReceiver]:
    made = RawReceiver()
    with made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield made


def opened(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Pipeline:
    """A pipeline in this environment."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return open_pipeline("celery@box", 3_600.0)


def test_by_default_metrics_and_events_go_out_over_http(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(opened(monkeypatch))
    received = receiver.received
    assert [(e.name, e.body, e.attributes) for e in received.events] == [
        ("event", "text", {"n": 1})
    ]
    assert {(p.metric, p.value, p.count) for p in received.points} == {
        ("count", 3, 0),
        ("size", 100_000, 1),
    }
    resources = [e.resource for e in received.events] + [p.resource for p in received.points]
    assert all(resource == resources[0] for resource in resources)
    assert resources[0]["service.instance.id"] == "celery@box"
    assert resources[0]["host.name"] == socket.gethostname()
    scope = receiver.scope().scope
    assert (scope.name, scope.version) == ("otel_celery_memory", __version__)


def test_a_histogram_goes_out_cumulative_in_our_buckets(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(opened(monkeypatch))
    data = receiver.metric("size").histogram
    (point,) = data.data_points
    assert data.aggregation_temporality == CUMULATIVE
    assert list(point.explicit_bounds) == list(BUCKET_BOUNDS_BYTES)
    assert list(point.bucket_counts) == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("preference", ["delta", "lowmemory"])
def test_a_preference_for_deltas_is_honoured(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch, preference: str
) -> None:
    use(opened(monkeypatch, **{TEMPORALITY: preference}))
    assert receiver.metric("size").histogram.aggregation_temporality == DELTA
    assert receiver.metric("count").sum.aggregation_temporality == DELTA


def test_a_preference_for_exponential_buckets_is_honoured(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(opened(monkeypatch, **{AGGREGATION: "base2_exponential_bucket_histogram"}))
    metric = receiver.metric("size")
    assert metric.WhichOneof("data") == "exponential_histogram"
    (point,) = metric.exponential_histogram.data_points
    assert (point.count, point.sum) == (1, 100_000)


def test_a_preference_for_explicit_buckets_leaves_ours(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(opened(monkeypatch, **{AGGREGATION: "explicit_bucket_histogram"}))
    assert receiver.metric("size").WhichOneof("data") == "histogram"


def test_none_sends_nothing_of_that_signal(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(opened(monkeypatch, OTEL_METRICS_EXPORTER="none"))
    assert (len(receiver.received.points), len(receiver.received.events)) == (0, 1)
    use(opened(monkeypatch, OTEL_METRICS_EXPORTER="otlp", OTEL_LOGS_EXPORTER=" None "))
    assert (len(receiver.received.points), len(receiver.received.events)) == (2, 1)


def shown(output: str) -> dict[str, Any]:
    """The metrics that the console was shown, by name."""
    (resource,) = json.loads(output)["resource_metrics"]
    (scope,) = resource["scope_metrics"]
    return {metric["name"]: metric["data"] for metric in scope["metrics"]}


def test_the_console_exporter_prints_the_signal() -> None:
    output = in_a_process(USE, OTEL_METRICS_EXPORTER="console", OTEL_LOGS_EXPORTER="none")
    assert list(shown(output)) == ["count", "size"]
    output = in_a_process(USE, OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="console")
    assert json.loads(output)["body"] == "text"


@pytest.mark.parametrize("preference", ["cumulative", "delta"])
def test_two_exporters_get_the_same_points(receiver: RawReceiver, preference: str) -> None:
    variables = {"OTEL_METRICS_EXPORTER": "otlp,console", TEMPORALITY: preference}
    output = in_a_process(USE, **variables, OTEL_LOGS_EXPORTER="none")
    counts = [
        shown(output)["size"]["data_points"][0]["count"],
        receiver.metric("size").histogram.data_points[0].count,
    ]
    assert counts == [1, 1]


def test_an_unknown_exporter_is_logged_and_ignored(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(opened(monkeypatch, OTEL_METRICS_EXPORTER="prometheus", OTEL_LOGS_EXPORTER="otlp,pigeon"))
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "OTEL_METRICS_EXPORTER=prometheus is not otlp, console or none: ignored",
        "OTEL_METRICS_EXPORTER names no known exporter: otlp is used",
        "OTEL_LOGS_EXPORTER=pigeon is not otlp, console or none: ignored",
    ]
    assert (len(receiver.received.points), len(receiver.received.events)) == (2, 1)


@pytest.mark.parametrize(
    ("variables", "protocols"),
    [
        ({}, ("http", "http")),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("grpc", "grpc")),
        ({"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}, ("grpc", "http")),
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
            },
            ("grpc", "http"),
        ),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, ("http", "http")),
    ],
)
def test_the_protocol_is_the_signal_s_own_before_the_general_one(
    variables: dict[str, str], protocols: tuple[str, str]
) -> None:
    output = in_a_process(
        """
import os
from otel_celery_memory.telemetry import pipeline
metrics = pipeline._exporters("METRICS", pipeline.ConsoleMetricExporter, os.environ)
logs = pipeline._exporters("LOGS", pipeline._console_log_exporter, os.environ)
for exporter in metrics + logs:
    print(type(exporter).__module__.split(".proto.")[1].partition(".")[0])
""",
        **variables,
    )
    assert tuple(output.split()) == protocols


def test_one_exporter_gets_our_histogram_and_several_the_sdk_s(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {}
    for exporter in ("otlp", "otlp,console", "none"):
        pipeline = opened(monkeypatch, OTEL_METRICS_EXPORTER=exporter, OTEL_LOGS_EXPORTER="none")
        kinds[exporter] = type(pipeline.histogram("size"))
        pipeline.shutdown()
    assert kinds["otlp"] is TaskHistogram
    assert all(issubclass(kinds[several], SdkHistogram) for several in ("otlp,console", "none"))
