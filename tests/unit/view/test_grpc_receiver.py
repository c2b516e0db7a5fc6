"""The receiver over gRPC takes what OpenTelemetry's own exporters send, within its bounds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import grpc
import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from otel_celery_memory import conventions as c
from otel_celery_memory.view.grpc_receiver import AT_ONCE_MAX, grpc_receiver
from otel_celery_memory.view.intake import BODY_BYTES_MAX, Intake
from otel_celery_memory.view.otlp import Sender
from otel_celery_memory.view.store import Store
from tests.processes import LOOPBACK, wait_until
from tests.unit.view.examples import BEGAN_S, shown, shown_worker
from tests.unit.view.test_receiver import RESOURCE, results_of_a_span

PATIENCE_S = 300.0
SERVICE = "/opentelemetry.proto.collector.{}Service/Export"
SERVICES = ("metrics.v1.Metrics", "logs.v1.Logs", "trace.v1.Trace")
NO_ROOM = "RESOURCE_EXHAUSTED"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""Of a connection of HTTP/2, with settings that are the default."""


@pytest.fixture
def store() -> Store:
    return Store(BEGAN_S)


@contextmanager
def served(store: Store, connection_s: float = 60.0) -> Iterator[int]:
    """The port of a receiver on a loop of its own."""
    ports: list[int] = []
    ready, over = Event(), Event()

    async def serve() -> None:
        server = grpc_receiver(Intake(store, lambda: BEGAN_S), connection_s)
        ports.append(server.add_insecure_port(f"{LOOPBACK}:0"))
        await server.start()
        ready.set()
        await asyncio.to_thread(over.wait)
        await server.stop(None)

    thread = Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield ports[0]
    finally:
        over.set()
        thread.join(PATIENCE_S)


@pytest.fixture
def port(store: Store) -> Iterator[int]:
    with served(store) as number:
        yield number


def refusal(port: int, path: str, body: bytes, **options: Any) -> tuple[grpc.StatusCode, str]:
    """The status and the words with which a request is refused."""
    unlimited = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"{LOOPBACK}:{port}", unlimited) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(path)(body, timeout=PATIENCE_S, **options)
        return refused.value.code(), refused.value.details()


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_metrics_of_the_real_exporter_arrive(
    store: Store, port: int, compression: grpc.Compression
) -> None:
    exporter = OTLPMetricExporter(
        f"http://{LOOPBACK}:{port}", insecure=True, compression=compression
    )
    meters = MeterProvider(
        [PeriodicExportingMetricReader(exporter)], RESOURCE, shutdown_on_exit=False
    )
    meter = meters.get_meter(c.SCOPE, "1")
    meter.create_counter(c.MEASURED.name).add(3, {c.TASK_NAME: "a"})
    meter.create_up_down_counter(c.MEMORY.name).add(9, {c.SLOT: "0"})
    meters.shutdown()
    assert list(store.workers) == [Sender("shop", "celery@box", "box")]
    worker = shown_worker(store)
    assert [(each["slot"], each["rss"]) for each in worker["processes"]] == [("0", 9)]
    assert [(each["name"], each["runs"]) for each in worker["tasks"]] == [("a", 3)]


def test_events_of_the_real_exporter_arrive(store: Store, port: int) -> None:
    logs = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    exporter = OTLPLogExporter(f"http://{LOOPBACK}:{port}", insecure=True)
    logs.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logs.get_logger(c.SCOPE, "1").emit(
        event_name=c.LEAK.name,
        timestamp=round(BEGAN_S * 1e9),
        severity_number=SeverityNumber.WARN,
        body="feeds.refresh leaks",
        attributes={c.TASK_NAME: "feeds.refresh"},
    )
    logs.shutdown()
    (verdict,) = shown(store)["verdicts"]
    assert (verdict["task"], verdict["text"]) == ("feeds.refresh", "feeds.refresh leaks")


def test_spans_are_accepted_and_kept_nowhere(store: Store, port: int) -> None:
    exporter = OTLPSpanExporter(f"http://{LOOPBACK}:{port}", insecure=True)
    assert results_of_a_span(exporter) == ["SUCCESS"]
    assert store.workers == {}


@pytest.mark.parametrize("service", SERVICES)
def test_garbage_is_refused_with_its_reason(store: Store, port: int, service: str) -> None:
    code, reason = refusal(port, SERVICE.format(service), b"\xff\xffgarbage")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert reason.startswith("no request of OTLP: ")
    assert store.workers == {}


@pytest.mark.parametrize("path", [SERVICE.format("profiles.v1.Profiles"), "/any.Service/Method"])
def test_what_is_not_received_here_is_said_to_be_unknown(port: int, path: str) -> None:
    assert refusal(port, path, b"")[0] == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_is_too_large_packed_or_unpacked_is_refused(
    store: Store, port: int, compression: grpc.Compression
) -> None:
    body = bytes(BODY_BYTES_MAX + 1)
    code, reason = refusal(port, SERVICE.format(SERVICES[0]), body, compression=compression)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in reason
    assert store.workers == {}


def test_a_connection_that_stands_still_is_ended_and_who_sends_in_order_is_not(
    store: Store,
) -> None:
    with served(store, connection_s=0.5) as port:
        standing = [socket.create_connection((LOOPBACK, port), PATIENCE_S) for _ in range(20)]
        for each in standing:
            each.sendall(PREFACE)
        with grpc.insecure_channel(f"{LOOPBACK}:{port}") as channel:
            export = channel.unary_unary(SERVICE.format(SERVICES[0]))

            def all_ended() -> bool:
                assert export(b"", timeout=PATIENCE_S, wait_for_ready=True) == b""
                for each in standing:
                    each.settimeout(0.01)
                return all(_ended(each) for each in standing)

            wait_until("those that stand still are ended", all_ended, PATIENCE_S)
        for each in standing:
            each.close()


def _ended(connection: socket.socket) -> bool:
    try:
        while data := connection.recv(4_096):
            if data == b"":
                break
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_while_as_many_are_held_as_can_be_others_are_told_that_there_is_no_room(
    port: int,
) -> None:
    path, over = SERVICE.format(SERVICES[0]), Event()

    def stands_still() -> Iterator[bytes]:
        over.wait(PATIENCE_S)
        yield b""

    with grpc.insecure_channel(f"{LOOPBACK}:{port}", [("grpc.standing", 1)]) as standing:
        held = [standing.stream_unary(path).future(stands_still()) for _ in range(AT_ONCE_MAX)]
        try:
            wait_until("there is no room", lambda: _answer(port, path) == NO_ROOM, PATIENCE_S)
        finally:
            over.set()
        assert [each.result(PATIENCE_S) for each in held] == [b""] * AT_ONCE_MAX
    wait_until("there is room again", lambda: _answer(port, path) == "OK", PATIENCE_S)


def _answer(port: int, path: str) -> str:
    with grpc.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        try:
            channel.unary_unary(path)(b"", timeout=PATIENCE_S)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"
