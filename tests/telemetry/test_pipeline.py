"""A pipeline of our own, on a real receiver: the standard variables choose where all goes."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import Histogram as SdkHistogram

from otel_celery_memory import __version__
from otel_celery_memory.conventions import BUCKET_BOUNDS_BYTES
from otel_celery_memory.telemetry.metrics import TaskHistogram
from otel_celery_memory.telemetry.pipeline import Pipeline, open_pipeline
from tests.processes import free_ports
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


def test_the_console_is_for_people() -> None:
    output = in_a_process(USE, OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="console")
    assert re.fullmatch(r"\d\d:\d\d:\d\d -     event: text\n", output)


@pytest.mark.parametrize("preference", ["cumulative", "delta"])
def test_two_exporters_get_the_same_points(receiver: RawReceiver, preference: str) -> None:
    variables = {"OTEL_METRICS_EXPORTER": "otlp,otlp_proto_http", TEMPORALITY: preference}
    in_a_process(USE, **variables, OTEL_LOGS_EXPORTER="none")
    points = [(p.metric, p.value, p.count) for p in receiver.received.points]
    assert sorted(points) == [("count", 3, 0)] * 2 + [("size", 100_000, 1)] * 2


def test_in_the_place_of_an_unknown_exporter_otlp_is_used(
    receiver: RawReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(opened(monkeypatch, OTEL_METRICS_EXPORTER="owl", OTEL_LOGS_EXPORTER="otlp,pigeon"))
    assert (len(receiver.received.points), len(receiver.received.events)) == (2, 1)


SCRAPED = """
import os
from urllib.request import urlopen
from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry.pipeline import open_pipeline
from tests.telemetry.receiving import use
pipeline = open_pipeline("celery@box", 3600.0)
pipeline.meter.create_counter("count").add(3)
pipeline.histogram("size", explicit_bucket_boundaries_advisory=[1.0]).record(5, {"a": "b"})
url = "http://127.0.0.1:" + os.environ["OTEL_EXPORTER_PROMETHEUS_PORT"] + "/metrics"
print(urlopen(url).read().decode(), pipeline.checkpointed)
pipeline.shutdown()
"""


def test_prometheus_may_read_the_metrics_itself() -> None:
    (port,) = free_ports(1)
    output = in_a_process(
        SCRAPED,
        OTEL_METRICS_EXPORTER="prometheus",
        OTEL_LOGS_EXPORTER="none",
        OTEL_EXPORTER_PROMETHEUS_HOST="127.0.0.1",
        OTEL_EXPORTER_PROMETHEUS_PORT=str(port),
    )
    lines = output.splitlines()
    assert any(re.fullmatch(r"count_total(\{.*\})? 3\.0", line) for line in lines)
    assert any(re.fullmatch(r'size_sum\{.*a="b".*\} 5\.0', line) for line in lines)
    assert any('service_instance_id="celery@box"' in line for line in lines)
    # Nobody says what Prometheus has read.
    assert lines[-1].endswith(" False")


FOREIGN = """
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
class Owl(ConsoleMetricExporter):
    pass
def broken():
    raise OSError("the owl is asleep")
"""


@pytest.mark.parametrize("name", ["Owl", "broken"])
def test_an_exporter_that_is_installed_is_used_and_one_that_fails_is_said_in_one_line(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "owls.py").write_text(FOREIGN)
    metadata = tmp_path / "owls-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: owls\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[opentelemetry_metrics_exporter]\nowl = owls:{name}\n"
    )
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.stderr = sys.stdout\n{USE}"
    output = in_a_process(script, OTEL_METRICS_EXPORTER="owl", OTEL_LOGS_EXPORTER="none")
    if name == "Owl":
        (resource,) = json.loads(output)["resource_metrics"]
        (scope,) = resource["scope_metrics"]
        assert [metric["name"] for metric in scope["metrics"]] == ["count", "size"]
    else:
        assert output == (
            "otel_celery_memory: the exporter owl of OTEL_METRICS_EXPORTER cannot be used: "
            "OSError: the owl is asleep\n"
        )


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
from otel_celery_memory.telemetry import providers
metrics = providers._exporters("METRICS", print, os.environ)
logs = providers._exporters("LOGS", print, os.environ)
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
