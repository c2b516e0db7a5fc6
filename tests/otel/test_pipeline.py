"""A pipeline of our own as a file declares it, on a real receiver."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from opentelemetry.sdk.metrics import Histogram as SdkHistogram

from demo.receiver import Receiver
from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry.metrics import TaskHistogram
from otel_celery_memory.telemetry.pipeline import Pipeline, open_pipeline
from tests.otel.declaring import FILE, written
from tests.processes import free_ports, wait_until
from tests.telemetry.receiving import USE, RawReceiver, in_a_process, use

CUMULATIVE, DELTA = 2, 1
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawReceiver]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # What the variables say is not to count.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "of-the-variables")
    made = RawReceiver()
    with made:
        yield made


def opened(monkeypatch: pytest.MonkeyPatch, path: str) -> Pipeline:
    monkeypatch.setenv("OTEL_CONFIG_FILE", path)
    return open_pipeline("celery@box", 3_600.0)


def test_exporters_and_resource_are_the_file_s_and_the_instance_is_the_worker(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEAM", "mail")
    use(opened(monkeypatch, written(tmp_path, raw.endpoint)))
    received = raw.received
    assert {(p.metric, p.value, p.count) for p in received.points} == {
        ("count", 3, 0),
        ("size", 100_000, 1),
    }
    assert [event.body for event in received.events] == ["text"]
    for resource in (received.points[0].resource, received.events[0].resource):
        named = {key: resource[key] for key in ("service.name", "team", "service.instance.id")}
        assert named == {
            "service.name": "shop",
            "team": "mail",
            "service.instance.id": "celery@box",
        }


def test_an_instance_that_the_file_names_is_kept(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = FILE.replace(
        "name: team\n      value: ${TEAM:-feeds}", "name: host.name\n      value: b"
    )
    text = text.replace("resource:\n", "resource:\n  attributes_list: service.instance.id=mine\n")
    use(opened(monkeypatch, written(tmp_path, raw.endpoint, text)))
    resource = raw.received.points[0].resource
    assert (resource["service.instance.id"], resource["host.name"]) == ("mine", "b")


def test_it_is_exported_as_often_as_the_file_says(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline = opened(monkeypatch, written(tmp_path, raw.endpoint))
    pipeline.meter.create_counter("count").add(3)
    # Our own interval is an hour here.
    wait_until("two exports", lambda: len(raw.metric_requests) >= 2, 30)
    pipeline.shutdown()


def with_preference(text: str) -> str:
    return FILE.replace("/v1/metrics\n", f"/v1/metrics\n            {text}\n")


def test_a_preference_for_deltas_is_the_file_s(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = with_preference("temporality_preference: delta")
    pipeline = opened(monkeypatch, written(tmp_path, raw.endpoint, text))
    assert pipeline.delta
    use(pipeline)
    assert raw.metric("size").histogram.aggregation_temporality == DELTA
    assert raw.metric("count").sum.aggregation_temporality == DELTA


def test_a_preference_for_exponential_buckets_is_the_file_s(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = with_preference("default_histogram_aggregation: base2_exponential_bucket_histogram")
    use(opened(monkeypatch, written(tmp_path, raw.endpoint, text)))
    assert raw.metric("size").WhichOneof("data") == "exponential_histogram"


VIEWS = """
  views:
    - selector:
        instrument_name: size
      stream:
        name: bytes
        attribute_keys:
          included: [nothing]
        aggregation:
          explicit_bucket_histogram:
            boundaries: [10.0, 1000000.0]
    - selector:
        instrument_name: count
      stream:
        aggregation:
          drop:
logger_provider:
"""


def test_views_of_the_file_rename_drop_and_choose_buckets(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = FILE.replace("logger_provider:\n", VIEWS.removeprefix("\n"))
    use(opened(monkeypatch, written(tmp_path, raw.endpoint, text)))
    (point,) = raw.metric("bytes").histogram.data_points
    assert (list(point.explicit_bounds), len(point.attributes)) == ([10.0, 1_000_000.0], 0)
    assert {p.metric for p in raw.received.points} == {"bytes"}


def test_without_views_the_histogram_is_ours_in_our_buckets(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = opened(monkeypatch, written(tmp_path, raw.endpoint))
    assert isinstance(plain.histogram("a"), TaskHistogram)
    use(plain)
    (point,) = raw.metric("size").histogram.data_points
    assert list(point.explicit_bounds) == list(c.BUCKET_BOUNDS_BYTES)
    text = FILE.replace("logger_provider:\n", VIEWS.removeprefix("\n"))
    viewed = opened(monkeypatch, written(tmp_path, raw.endpoint, text))
    assert isinstance(viewed.histogram("a"), SdkHistogram)
    viewed.shutdown()


def test_what_an_endpoint_has_acknowledged_is_followed_as_with_the_variables(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    acknowledged: list[Any] = []
    monkeypatch.setenv("OTEL_CONFIG_FILE", written(tmp_path, raw.endpoint))
    raw.status = 503
    pipeline = open_pipeline("celery@box", 3_600.0, events_acknowledged=acknowledged.extend)
    pipeline.logger.emit(event_name="event", body="text")
    wait_until("it was refused", lambda: raw.received.requests, 30)
    raw.status = 200
    wait_until("it is sent again", lambda: acknowledged, 60)
    pipeline.shutdown()
    assert [event.body for event in raw.received.events] == ["text"]


def test_a_signal_that_the_file_leaves_out_goes_nowhere(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = FILE.partition("logger_provider:")[0]
    use(opened(monkeypatch, written(tmp_path, raw.endpoint, text)))
    assert (len(raw.received.points), len(raw.received.events)) == (2, 0)


PROMETHEUS = """
file_format: "1.0"
meter_provider:
  readers:
    - pull:
        exporter:
          prometheus/development:
            host: 127.0.0.1
            port: PORT
"""


def test_a_reader_that_prometheus_asks_is_the_file_s(
    raw: RawReceiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    text = PROMETHEUS.replace("PORT", str(port))
    pipeline = opened(monkeypatch, written(tmp_path, raw.endpoint, text))
    pipeline.meter.create_counter("count").add(3)
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        scraped = answer.read().decode()
    assert re.search(r"^count_total(\{.*\})? 3\.0$", scraped, re.MULTILINE)
    assert 'service_instance_id="celery@box"' in scraped
    assert pipeline.checkpointed is False
    pipeline.shutdown()


def test_the_console_of_a_file_is_for_people_too(tmp_path: Path) -> None:
    text = (
        'file_format: "1.0"\nlogger_provider:\n  processors:\n'
        "    - simple:\n        exporter:\n          console:\n"
    )
    output = in_a_process(USE, OTEL_CONFIG_FILE=written(tmp_path, NOWHERE, text))
    assert re.fullmatch(r"\d\d:\d\d:\d\d -     event: text\n", output)


def test_where_the_file_sends_to_is_said_without_a_password(
    raw: RawReceiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    text = FILE.replace("otlp_http:\n            endpoint: ENDPOINT/v1/logs", "console:")
    endpoint = raw.endpoint.replace("://", "://user:secret@")
    path = written(tmp_path, endpoint, text)
    opened(monkeypatch, path).shutdown()
    assert (
        f"otel_celery_memory: as {path} says, metrics are sent to {raw.endpoint}/v1/metrics "
        "(otlp_http), events to console"
    ) in caplog.messages
    assert "secret" not in caplog.text


def test_what_opentelemetry_does_not_read_of_a_file_is_said(
    raw: RawReceiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = written(tmp_path, raw.endpoint, with_preference("tls: {ca_file: /ca.pem}"))
    opened(monkeypatch, path).shutdown()
    assert (
        f"otel_celery_memory: {path}: tls of otlp_http is not read by OpenTelemetry's reader of "
        "the file; certificates are those of OTEL_EXPORTER_OTLP_CERTIFICATE"
    ) in caplog.messages


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "Failed to parse YAML"),
        ("", "Configuration file is empty"),
        ("file_format: '2.0'", "Unsupported file_format '2.0'"),
        ("file_format: '1.0'\nmeter_provider: {}", "does not match schema"),
        (FILE.replace("otlp_http", "owl"), "Plugin 'owl' not found"),
        (None, "Configuration file not found"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_the_variables_are_used(
    raw: RawReceiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    text: str | None,
    why: str,
) -> None:
    path = str(tmp_path / "none.yaml") if text is None else written(tmp_path, raw.endpoint, text)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", raw.endpoint)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    use(opened(monkeypatch, path))
    (line,) = caplog.messages
    assert line.startswith(f"otel_celery_memory: OTEL_CONFIG_FILE={path} cannot be used: ")
    assert why in line
    assert line.endswith("; the OTEL_... variables are used")
    assert "\n" not in line
    assert raw.received.points[0].resource["service.name"] == "of-the-variables"


def test_a_missing_package_is_named(
    raw: RawReceiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.configuration", None)
    opened(monkeypatch, written(tmp_path, raw.endpoint)).shutdown()
    assert "cannot be used: opentelemetry-configuration is not installed" in caplog.text


def test_a_release_that_is_too_old_is_named(
    raw: RawReceiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.65b0")
    opened(monkeypatch, written(tmp_path, raw.endpoint)).shutdown()
    assert "cannot be used: opentelemetry-configuration is 0.65b0, 0.66b0 or later" in caplog.text


def test_no_port_is_kept_by_a_file_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    text = PROMETHEUS.replace("PORT", str(port)) + (
        "logger_provider:\n  processors:\n    - batch:\n        exporter:\n          owl:\n"
    )
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        opened(monkeypatch, written(tmp_path, NOWHERE, text)).shutdown()
    assert port in free_ports_among(port)


def free_ports_among(port: int) -> list[int]:
    """The port, if nobody listens at it."""
    import socket

    with socket.socket() as tried:
        return [] if tried.connect_ex(("127.0.0.1", port)) == 0 else [port]
