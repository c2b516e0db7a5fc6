"""Requests of OTLP as plain values: what one sender said, of the telemetry that this package emits.

What other programs send to the same port is left out: only our scope's metrics and events are
values here. Texts are cut, numbers are finite, so that what is kept has a bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_celery_memory import conventions as c

Value = str | int | float | bool
Attributes = Mapping[str, Value]
M = TypeVar("M")

TEXT_MAX = 500
"""Characters of an attribute: names of tasks and paths are shorter."""
BODY_MAX = 4_000
"""Characters of an event's sentences, and of a stack."""
ATTRIBUTES_MAX = 40
_DELTA = 1
"""AGGREGATION_TEMPORALITY_DELTA"""


class MalformedError(Exception):
    """The body is no request of OTLP in protobuf."""


@dataclass(frozen=True)
class Sender:
    """Who sent it, from the resource: a worker."""

    service: str
    node: str
    """``service.instance.id``, the worker's node name."""
    host: str


@dataclass(frozen=True)
class Sample:
    """One point of a metric. Of a histogram ``value`` is the sum, ``highest`` its maximum."""

    metric: str
    attributes: Attributes
    start_ns: int
    time_ns: int
    value: float
    count: int = 0
    highest: float | None = None
    delta: bool = False
    """Whether it is what came since the last point, rather than since ``start_ns``."""


@dataclass(frozen=True)
class LoggedEvent:
    """One log record with a name of ours; ``body`` is for people."""

    name: str
    severity: str
    body: str
    time_ns: int
    attributes: Attributes


def read_metrics(body: bytes) -> Iterator[tuple[Sender, list[Sample]]]:
    """The points of a request for metrics, by sender. Raises `MalformedError`."""
    request: Any = _parsed(ExportMetricsServiceRequest, body)
    for of_resource in request.resource_metrics:
        scopes = [each for each in of_resource.scope_metrics if each.scope.name == c.SCOPE]
        if scopes:
            samples = (
                sample
                for scope in scopes
                for metric in scope.metrics
                for sample in _samples(metric)
            )
            yield _sender(of_resource.resource), list(samples)


def read_events(body: bytes) -> Iterator[tuple[Sender, list[LoggedEvent]]]:
    """The events of a request for logs, by sender. Raises `MalformedError`."""
    request: Any = _parsed(ExportLogsServiceRequest, body)
    for of_resource in request.resource_logs:
        scopes = [each for each in of_resource.scope_logs if each.scope.name == c.SCOPE]
        if scopes:
            yield (
                _sender(of_resource.resource),
                [_event(each) for scope in scopes for each in scope.log_records if each.event_name],
            )


def check_spans(body: bytes) -> None:
    """Raises `MalformedError` unless it is a request for spans, none of which is shown."""
    _parsed(ExportTraceServiceRequest, body)


def _parsed(message: Any, body: bytes) -> Any:
    try:
        return message.FromString(body)
    except DecodeError as error:
        raise MalformedError(str(error)) from None


def _sender(resource: Any) -> Sender:
    of = _attributes(resource.attributes)
    return Sender(
        str(of.get("service.name", "")),
        str(of.get("service.instance.id", "")),
        str(of.get("host.name", "")),
    )


def _samples(metric: Any) -> Iterator[Sample]:
    kind = metric.WhichOneof("data")
    if kind not in ("gauge", "sum", "histogram", "exponential_histogram"):
        return
    data = getattr(metric, kind)
    histogram = kind.endswith("histogram")
    delta = getattr(data, "aggregation_temporality", 0) == _DELTA
    for point in data.data_points:
        if histogram:
            value = point.sum
        else:
            value = float(getattr(point, point.WhichOneof("value") or "as_double"))
        if not math.isfinite(value):
            continue
        highest = point.max if histogram and point.HasField("max") else None
        yield Sample(
            metric.name[:TEXT_MAX],
            _attributes(point.attributes),
            point.start_time_unix_nano,
            point.time_unix_nano,
            value,
            point.count if histogram else 0,
            highest if highest is not None and math.isfinite(highest) else None,
            delta,
        )


def _event(record: Any) -> LoggedEvent:
    return LoggedEvent(
        record.event_name[:TEXT_MAX],
        record.severity_text[:TEXT_MAX],
        record.body.string_value[:BODY_MAX],
        record.time_unix_nano or record.observed_time_unix_nano,
        _attributes(record.attributes),
    )


def _attributes(items: Iterable[Any]) -> dict[str, Value]:
    kept: dict[str, Value] = {}
    for item in items:
        value = _plain(item.value, BODY_MAX if item.key == c.CODE_STACKTRACE else TEXT_MAX)
        if value is not None and len(kept) < ATTRIBUTES_MAX:
            kept[item.key[:TEXT_MAX]] = value
    return kept


def _plain(value: Any, longest: int) -> Value | None:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return str(value.string_value)[:longest]
    if kind == "array_value":
        texts = (each.string_value for each in value.array_value.values)
        return ", ".join(filter(None, texts))[:longest]
    if kind == "double_value":
        number = float(value.double_value)
        return number if math.isfinite(number) else None
    if kind in ("bool_value", "int_value"):
        plain: Value = getattr(value, kind)
        return plain
    return None
