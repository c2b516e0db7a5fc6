"""A pipeline of our own, on a real receiver: the standard variables choose where all goes."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics import Histogram as SdkHistogram

from demo.receiver import Receiver
from otel_celery_memory.conventions import BUCKET_BOUNDS_BYTES
from otel_celery_memory.telemetry.histogram import TaskHistogram
from otel_celery_memory.telemetry.pipeline import Pipeline, open_pipeline, worker_resource
from otel_celery_memory.version import __version__

AGGREGATION = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
DELTA, CUMULATIVE = 1, 2


class RawReceiver(Receiver):
    """Keeps the requests themselves as well."""

    def __init__(self) -> None:
        super().__init__()
        self.metric_requests: list[Any] = []

    def _keep(self, path: str, body: bytes) -> None:
        super()._keep(path, body)
        if path == "/v1/metrics":
            self.metric_requests.append(ExportMetricsServiceRequest.FromString(body))

    def scope(self) -> Any:
        """The scope of the last request, which has just one."""
        ((scope,),) = (of.scope_metrics for of in self.metric_requests[-1].resource_metrics)
        return scope

    def metric(self, name: str) -> Any:
        """A metric of the last request, which has it once."""
        (found,) = (metric for metric in self.scope().metrics if metric.name == name)
        return found


@pytest.fixture(autouse=True)
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawReceiver]:
    with RawReceiver() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield made


def opened(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Pipeline:
    """A pipeline in this environment."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return open_pipeline("celery@box", 3_600.0)


def in_a_process(code: str, **variables: str) -> str:
    """What Python code writes: gRPC and the console exporters keep what they began with."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout


USE = """
from otel_celery_memory.telemetry.pipeline import open_pipeline
from tests.telemetry.test_pipeline import use
use(open_pipeline("celery@box", 3600.0))
"""


def use(pipeline: Pipeline) -> None:
    """One value of each sort goes in, and all of it out."""
    pipeline.meter.create_counter("count").add(3)
    make = pipeline.histogram
    histogram = make("size", explicit_bucket_boundaries_advisory=list(BUCKET_BOUNDS_BYTES))
    histogram.record(100_000, {"celery.task.name": "a"})
    pipeline.logger.emit(event_name="event", body="text", attributes={"n": 1})
    pipeline.shutdown()


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


def test_the_console_is_shown_what_it_is_asked_for() -> None:
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


def test_an_exporter_that_is_not_known_is_told_and_left_out(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(opened(monkeypatch, OTEL_METRICS_EXPORTER="prometheus", OTEL_LOGS_EXPORTER="otlp,pigeon"))
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "OTEL_METRICS_EXPORTER=prometheus is not otlp, console or none: ignored",
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
metrics, logs = pipeline._metric_exporters(os.environ), pipeline._log_exporters(os.environ)
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


RESOURCES = [
    ({}, {"service.name": "unknown_service", "service.instance.id": "celery@box"}),
    (
        {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "service.name=x,team=a"},
        {"service.name": "shop", "service.instance.id": "celery@box", "team": "a"},
    ),
    (
        {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=mine , host.name=pod-7"},
        {"service.name": "unknown_service", "service.instance.id": "mine", "host.name": "pod-7"},
    ),
]


@pytest.mark.parametrize(("variables", "expected"), RESOURCES)
def test_the_resource_is_the_user_s_and_the_instance_the_worker_unless_he_names_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    attributes = dict(worker_resource("celery@box", os.environ).attributes)
    for name in [name for name in attributes if name.startswith("telemetry.")]:
        del attributes[name]
    # The SDK adds the interpreter's name to a service that has none.
    attributes["service.name"] = str(attributes["service.name"]).partition(":")[0]
    assert attributes == {"host.name": socket.gethostname(), **expected}
