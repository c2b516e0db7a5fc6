"""A small OTLP/HTTP receiver that keeps all telemetry as plain values, for tests and benchmarks."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Lock, Thread
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One data point: ``value`` is a sum's value or a histogram's sum; ``count`` its count."""

    metric: str
    unit: str
    resource: Attributes
    attributes: Attributes
    start_ns: int
    time_ns: int
    value: float
    count: int = 0
    low: float = 0
    high: float = 0
    exemplar_traces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """One log record that has an event name."""

    name: str
    severity: str
    body: str
    time_ns: int
    resource: Attributes
    attributes: Attributes
    trace_id: str = ""
    span_id: str = ""
    received_ns: int = field(default=0, compare=False)
    """The same for all that came in one request."""


@dataclass(frozen=True)
class ReceivedSpan:
    """One span."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    resource: Attributes
    attributes: Attributes


@dataclass
class Received:
    """Everything that arrived so far, in order; copy the lists before going through them."""

    points: list[Point] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    spans: list[ReceivedSpan] = field(default_factory=list)
    requests: int = 0

    def latest(self, metric: str) -> list[Point]:
        """The newest point of every stream of a metric: who sent it, since when, attributes."""
        newest: dict[tuple[Any, ...], Point] = {}
        for point in list(self.points):
            if point.metric == metric:
                key = (
                    point.resource.get("service.instance.id"),
                    point.start_ns,
                    *sorted(point.attributes.items()),
                )
                newest[key] = point
        return list(newest.values())


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for this host's name, which may take seconds.
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a sender that was killed in the middle of a request."""


class Receiver:
    """Listens on a free port of 127.0.0.1; use as a context manager."""

    def __init__(self, status: int = 200) -> None:
        self.received = Received()
        self.status = status
        """The status of responses; anything but 200 is a failing Collector."""
        self._lock = Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, format: str, *args: Any) -> None:
                """No access log."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        """The value for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        with self._lock:
            self.received.requests += 1
            if self.status == 200:
                self._keep(handler.path, body)
        handler.send_response(self.status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _keep(self, path: str, body: bytes) -> None:
        if path == "/v1/metrics":
            metrics = ExportMetricsServiceRequest.FromString(body)
            self.received.points.extend(_points(metrics))
        elif path == "/v1/logs":
            logs = ExportLogsServiceRequest.FromString(body)
            self.received.events.extend(_events(logs, time.time_ns()))
        elif path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            self.received.spans.extend(_spans(traces))


def _plain(attributes: Iterable[Any]) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in attributes
    }


def _points(request: Any) -> Iterable[Point]:
    for of_resource in request.resource_metrics:
        resource = _plain(of_resource.resource.attributes)
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                for point in data.data_points:
                    yield _point(metric, point, resource)


def _point(metric: Any, point: Any, resource: Attributes) -> Point:
    histogram = metric.WhichOneof("data") in ("histogram", "exponential_histogram")
    value = point.sum if histogram else point.as_int or point.as_double
    return Point(
        metric.name,
        metric.unit,
        resource,
        _plain(point.attributes),
        point.start_time_unix_nano,
        point.time_unix_nano,
        value,
        point.count if histogram else 0,
        point.min if histogram else 0,
        point.max if histogram else 0,
        tuple(exemplar.trace_id.hex() for exemplar in point.exemplars),
    )


def _events(request: Any, received_ns: int) -> Iterable[Event]:
    for of_resource in request.resource_logs:
        resource = _plain(of_resource.resource.attributes)
        for of_scope in of_resource.scope_logs:
            for record in of_scope.log_records:
                yield Event(
                    record.event_name,
                    record.severity_text,
                    record.body.string_value,
                    record.time_unix_nano,
                    resource,
                    _plain(record.attributes),
                    record.trace_id.hex(),
                    record.span_id.hex(),
                    received_ns,
                )


def _spans(request: Any) -> Iterable[ReceivedSpan]:
    for of_resource in request.resource_spans:
        resource = _plain(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield ReceivedSpan(
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    resource,
                    _plain(span.attributes),
                )
