"""Sends the telemetry of a made-up worker to a view, as OTLP in protobuf."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from otel_celery_memory import conventions as c
from otel_celery_memory.view.otlp import Value

_opener = build_opener(ProxyHandler({}))
_CUMULATIVE = 2

Point = tuple[c.Metric | str, float, Mapping[str, Value], int]


@dataclass
class MadeUpWorker:
    """A worker that says what a test wants."""

    endpoint: str
    node: str = "celery@box"
    service: str = "shop"
    host: str = "box"
    start_ns: int = field(default_factory=time.time_ns)

    def metrics(self, *points: Point) -> None:
        """Exports points: the metric, its value or sum, attributes, and a histogram's count."""
        request: Any = ExportMetricsServiceRequest()
        of_resource = request.resource_metrics.add()
        scope = self._scope(of_resource, of_resource.scope_metrics)
        for metric, value, of, count in points:
            name = metric if isinstance(metric, str) else metric.name
            made = scope.metrics.add(name=name)
            data = made.histogram if count else made.sum
            data.aggregation_temporality = _CUMULATIVE
            point = data.data_points.add(
                start_time_unix_nano=self.start_ns, time_unix_nano=time.time_ns()
            )
            if count:
                point.sum, point.count, point.max = value, count, value / count
            else:
                point.as_double = value
            _set(point.attributes, of)
        self._post("/v1/metrics", request)

    def tasks(self, names: Iterable[str]) -> None:
        """Exports that each of these tasks ran, and retained the more the later it comes."""
        points: list[Point] = []
        for number, name in enumerate(names, start=1):
            of: dict[str, Value] = {c.TASK_NAME: name}
            points += [
                (c.MEASURED, 10.0 * number, {**of, c.TASK_STATE: "SUCCESS", c.EXCLUSIVE: True}, 0),
                (c.HEAP_RETAINED, 1_024.0 * number, {**of, c.DIRECTION: c.GROW}, 2),
            ]
        self.metrics((c.MEMORY, 64 << 20, {c.SLOT: "main"}, 0), *points)

    def event(self, name: str, body: str, of: Mapping[str, Value]) -> None:
        """Exports one event."""
        request: Any = ExportLogsServiceRequest()
        of_resource = request.resource_logs.add()
        scope = self._scope(of_resource, of_resource.scope_logs)
        record = scope.log_records.add(
            event_name=name, time_unix_nano=time.time_ns(), severity_text="WARN"
        )
        record.body.string_value = body
        _set(record.attributes, of)
        self._post("/v1/logs", request)

    def _scope(self, of_resource: Any, scopes: Any) -> Any:
        resource = {
            "service.name": self.service,
            "service.instance.id": self.node,
            "host.name": self.host,
        }
        _set(of_resource.resource.attributes, resource)
        scope = scopes.add()
        scope.scope.name = c.SCOPE
        return scope

    def _post(self, path: str, request: Any) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        with _opener.open(
            Request(self.endpoint + path, request.SerializeToString(), headers), timeout=300
        ) as answer:
            assert answer.status == 200


def _set(attributes: Any, of: Mapping[str, Value]) -> None:
    for key, value in of.items():
        into = attributes.add(key=key).value
        if isinstance(value, bool):
            into.bool_value = value
        elif isinstance(value, int):
            into.int_value = value
        elif isinstance(value, float):
            into.double_value = value
        else:
            into.string_value = value
