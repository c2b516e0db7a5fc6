"""The receiver takes what OpenTelemetry's own exporters send, and refuses what it cannot hold."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

from otel_celery_memory import conventions as c
from otel_celery_memory.view import receiver as module
from otel_celery_memory.view.intake import Intake
from otel_celery_memory.view.otlp import (
    BODY_MAX,
    TEXT_MAX,
    MalformedError,
    Sender,
    read_events,
    read_metrics,
)
from otel_celery_memory.view.receiver import receiver
from otel_celery_memory.view.store import Store
from tests.unit.view.examples import BEGAN_S, shown, shown_worker
from tests.unit.view.serving import Answer, ask, half_a_request, served

PROTOBUF = {"Content-Type": "application/x-protobuf"}
PLACES = ("/v1/metrics", "/v1/logs", "/v1/traces")
RESOURCE = Resource(
    {"service.name": "shop", "service.instance.id": "celery@box", "host.name": "box"}
)


@pytest.fixture
def store() -> Store:
    return Store(BEGAN_S)


@pytest.fixture
def port(store: Store) -> Iterator[int]:
    with served(receiver(Intake(store, lambda: BEGAN_S))) as number:
        yield number


def reason(answer: Answer) -> str:
    """What a refusal says."""
    return str(Status.FromString(answer.body).message)


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_metrics_of_the_real_exporter_arrive(
    store: Store, port: int, compression: Compression
) -> None:
    exporter = OTLPMetricExporter(f"http://127.0.0.1:{port}/v1/metrics", compression=compression)
    meters = MeterProvider(
        [PeriodicExportingMetricReader(exporter)], RESOURCE, shutdown_on_exit=False
    )
    meter = meters.get_meter(c.SCOPE, "1")
    meter.create_counter(c.MEASURED.name).add(3, {c.TASK_NAME: "a"})
    meter.create_histogram(c.HEAP_RETAINED.name).record(
        512, {c.TASK_NAME: "a", c.DIRECTION: c.GROW}
    )
    meter.create_up_down_counter(c.MEMORY.name).add(9, {c.SLOT: "0"})
    meters.get_meter("somebody.else").create_counter(c.MEASURED.name).add(99, {c.TASK_NAME: "a"})
    meters.shutdown()
    assert list(store.workers) == [Sender("shop", "celery@box", "box")]
    worker = shown_worker(store)
    assert [(each["slot"], each["rss"]) for each in worker["processes"]] == [("0", 9)]
    assert [(each["name"], each["runs"], each["retained"]) for each in worker["tasks"]] == [
        ("a", 3, 512)
    ]


def test_events_of_the_real_exporter_arrive(store: Store, port: int) -> None:
    logs = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    logs.add_log_record_processor(
        BatchLogRecordProcessor(OTLPLogExporter(f"http://127.0.0.1:{port}/v1/logs"))
    )
    logs.get_logger(c.SCOPE, "1").emit(
        event_name=c.LEAK.name,
        timestamp=round(BEGAN_S * 1e9),
        severity_number=SeverityNumber.WARN,
        body="feeds.refresh leaks",
        attributes={c.TASK_NAME: "feeds.refresh", c.LEAK_TYPES: ["dict", "str"]},
    )
    logs.shutdown()
    (verdict,) = shown(store)["verdicts"]
    assert (verdict["task"], verdict["text"], verdict["types"]) == (
        "feeds.refresh",
        "feeds.refresh leaks",
        "dict, str",
    )


def results_of_a_span(exporter: SpanExporter) -> list[str]:
    """What an exporter made of the answers that it got when a span was sent."""
    spans = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    results: list[Any] = []
    export = exporter.export
    exporter.export = lambda batch: results.append(export(batch)) or results[-1]  # type: ignore
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    spans.get_tracer("any").start_span("run").end()
    return [each.name for each in results]


def test_spans_are_accepted_and_kept_nowhere(store: Store, port: int) -> None:
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")
    assert results_of_a_span(exporter) == ["SUCCESS"]
    assert store.workers == {}


@pytest.mark.parametrize("path", PLACES)
def test_an_empty_request_is_answered_as_otlp_asks(port: int, path: str) -> None:
    answer = ask(port, path, b"", PROTOBUF)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_compressed_bodies_are_taken(store: Store, port: int, pack: Any) -> None:
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    scope.scope.name = c.SCOPE
    encoding = "gzip" if pack is gzip.compress else "deflate"
    headers = {**PROTOBUF, "Content-Encoding": encoding}
    assert ask(port, PLACES[0], pack(request.SerializeToString()), headers).status == 200
    assert len(store.workers) == 1


@pytest.mark.parametrize("path", PLACES)
def test_garbage_is_refused_with_its_reason(store: Store, port: int, path: str) -> None:
    answer = ask(port, path, b"\xff\xffgarbage", PROTOBUF)
    assert answer.status == 400
    assert reason(answer).startswith("no request of OTLP: ")
    assert store.workers == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/v1/metrics", None, {}, 405),
        ("POST", "/v1/other", b"", PROTOBUF, 404),
        ("POST", "/", b"", PROTOBUF, 404),
        ("POST", "/v1/metrics", b"{}", {"Content-Type": "application/json"}, 415),
        ("POST", "/v1/metrics", b"", {}, 415),
        ("POST", "/v1/metrics", b"", {**PROTOBUF, "Content-Encoding": "br"}, 415),
        ("POST", "/v1/metrics", b"x", {**PROTOBUF, "Content-Encoding": "gzip"}, 400),
        ("POST", "/v1/metrics", b"", {**PROTOBUF, "Origin": "http://evil.example"}, 403),
    ],
)
def test_what_is_no_request_of_an_exporter_is_refused_with_the_status_that_says_so(
    port: int, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    assert ask(port, path, body, headers, method).status == status


def test_a_body_that_says_that_it_is_too_large_is_refused_before_it_is_sent(port: int) -> None:
    head = (
        b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 99999999999\r\n\r\n"
    )
    with half_a_request(port, head) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_say_how_large_it_is_is_refused_when_it_is_too_large(
    port: int,
) -> None:
    head = (
        b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with half_a_request(port, head) as connection:
        chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        for _ in range(5):
            connection.sendall(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_unpacks_to_too_much_is_refused(port: int) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    answer = ask(port, "/v1/metrics", bomb, {**PROTOBUF, "Content-Encoding": "gzip"})
    assert answer.status == 413
    assert reason(answer) == "more than 8 MiB unpacked are not taken"


def test_a_compressed_body_that_ends_early_is_refused(port: int) -> None:
    half = gzip.compress(random.Random(1).randbytes(10_000))[:5_000]
    answer = ask(port, "/v1/metrics", half, {**PROTOBUF, "Content-Encoding": "gzip"})
    assert (answer.status, reason(answer)) == (400, "the compressed body ends early")


def test_a_sender_that_stands_still_is_refused_and_keeps_nobody_out(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 1.0)
    head = (
        b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 100\r\n\r\nhalf"
    )
    standing = [half_a_request(port, head) for _ in range(module.AT_ONCE_MAX)]
    try:
        assert {each.recv(12) for each in standing} == {b"HTTP/1.1 408"}
        assert ask(port, "/v1/metrics", b"", PROTOBUF).status == 200
    finally:
        for each in standing:
            each.close()


def test_more_at_once_than_can_be_held_are_told_to_come_again(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 3.0)
    head = (
        b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 100\r\n\r\nhalf"
    )
    standing = [half_a_request(port, head) for _ in range(module.AT_ONCE_MAX)]
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    try:
        answers = [ask(port, "/v1/metrics", b"", PROTOBUF) for _ in range(2)]
    finally:
        for each in standing:
            each.close()
    told = {(each.status, each.headers.get("retry-after")) for each in answers}
    assert told <= {(503, "5"), (200, None)}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_malformed(body: bytes) -> None:
    with suppress(MalformedError):
        list(read_metrics(body))
    with suppress(MalformedError):
        list(read_events(body))


def test_texts_are_cut_and_numbers_that_json_does_not_have_are_left_out() -> None:
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    scope = of_resource.scope_metrics.add()
    scope.scope.name = c.SCOPE
    points = scope.metrics.add(name=c.MEMORY.name).gauge.data_points
    for number in (float("nan"), float("inf"), 7.0):
        point = points.add(as_double=number)
        point.attributes.add(key=c.SLOT).value.string_value = "x" * 10_000
        point.attributes.add(key="none")
        point.attributes.add(key="nan").value.double_value = float("nan")
    ((_, samples),) = read_metrics(request.SerializeToString())
    assert [(each.value, each.attributes) for each in samples] == [(7.0, {c.SLOT: "x" * TEXT_MAX})]


def test_sentences_are_cut_and_records_without_a_name_are_left_out() -> None:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.scope.name = c.SCOPE
    scope.log_records.add().body.string_value = "no event"
    named = scope.log_records.add(event_name=c.LEAK.name, observed_time_unix_nano=5)
    named.body.string_value = "x" * 10_000
    ((_, events),) = read_events(request.SerializeToString())
    assert [(each.name, len(each.body), each.time_ns) for each in events] == [
        (c.LEAK.name, BODY_MAX, 5)
    ]
