"""Runs Jaeger, which keeps the traces in its memory, and asks it for them by its query API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.processes import LOOPBACK, Server, answers, free_ports, running
from tests.stack.go_build import JAEGER, tool_binary

# Jaeger is built on the Collector: receivers, exporters and extensions, configured alike.
CONFIG = """\
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [jaeger_storage_exporter]
  telemetry:
    metrics: {{level: none}}
    logs: {{level: warn}}
extensions:
  healthcheckv2: {{use_v2: true, http: {{endpoint: "{address}:{health}"}}}}
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 100000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "{address}:{query}"}}
    grpc: {{endpoint: "{address}:{query_grpc}"}}
receivers:
  otlp: {{protocols: {{http: {{endpoint: "{address}:{otlp}"}}}}}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""


@dataclass(frozen=True)
class Span:
    """One span as Jaeger shows it; ``kind`` is OpenTelemetry's, in small letters."""

    trace_id: str
    span_id: str
    name: str
    kind: str
    service: str
    attributes: Mapping[str, object]


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger."""

    url: str
    otlp_endpoint: str
    server: Server

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace; none where Jaeger does not know it."""
        url = f"{self.url}/api/traces?{urlencode({'traceID': trace_id})}"
        return _spans(self.server.get(url))

    def spans(self, service: str, operation: str) -> list[Span]:
        """The latest spans of traces in which ``service`` has a span of this name."""
        asked = {"service": service, "operation": operation, "limit": 50, "lookback": "1h"}
        return _spans(self.server.get(f"{self.url}/api/traces?{urlencode(asked)}"))


def _spans(answer: str) -> list[Span]:
    found = []
    for trace in json.loads(answer)["data"]:
        services = {key: process["serviceName"] for key, process in trace["processes"].items()}
        for span in trace["spans"]:
            tags = {tag["key"]: tag["value"] for tag in span["tags"]}
            found.append(
                Span(
                    span["traceID"],
                    span["spanID"],
                    span["operationName"],
                    str(tags.pop("span.kind", "internal")),
                    services[span["processID"]],
                    tags,
                )
            )
    return found


@contextmanager
def running_jaeger(directory: Path) -> Iterator[Jaeger]:
    """A Jaeger on free ports."""
    otlp, query, query_grpc, health = free_ports(4)
    config = directory / "jaeger.yaml"
    config.write_text(
        CONFIG.format(
            address=LOOPBACK, otlp=otlp, query=query, query_grpc=query_grpc, health=health
        ),
        encoding="utf-8",
    )
    command = [str(tool_binary(JAEGER)), f"--config={config}"]
    with running("jaeger", command, directory) as server:
        server.wait_ready(lambda: answers(f"http://{LOOPBACK}:{health}/status"))
        yield Jaeger(f"http://{LOOPBACK}:{query}", f"http://{LOOPBACK}:{otlp}", server)
