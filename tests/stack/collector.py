"""Runs the Collector on files of collector-config/ and reads back the events it wrote."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import LOOPBACK, ComponentError, answers, free_ports, running, wait_until

CONFIGS = Path(__file__).parents[2] / "collector-config"
DEBUG = ("collector.yaml", "debug.yaml")
EVENT_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Event:
    """One log record of the events file, in plain values."""

    name: str
    body: str
    severity: str
    attributes: Mapping[str, object]
    resource: Mapping[str, object]
    trace_id: str
    span_id: str


@dataclass(frozen=True)
class Collector:
    """Where a running Collector takes telemetry in and gives it out.

    The endpoints are base URLs, as ``OTEL_EXPORTER_OTLP_ENDPOINT`` wants them.
    """

    otlp_http_endpoint: str
    otlp_grpc_endpoint: str
    prometheus_scrape_port: int
    self_metrics_port: int
    events_file: Path
    log: Path
    pid: int

    def events(self, name: str | None = None, service: str | None = None) -> list[Event]:
        """The events so far, oldest first; only those called ``name``, of ``service``."""
        if not self.events_file.exists():
            return []
        lines = self.events_file.read_text(encoding="utf-8").splitlines(keepends=True)
        # A line without its end is still being written.
        requests = [json.loads(line) for line in lines if line.endswith("\n")]
        return [
            event
            for request in requests
            for event in _events(request)
            if name in (None, event.name) and service in (None, event.resource.get("service.name"))
        ]

    def wait_for_events(
        self, name: str, service: str | None = None, timeout_s: float = EVENT_TIMEOUT_S
    ) -> list[Event]:
        """The same, as soon as there is one."""
        return wait_until(f"an event {name}", lambda: self.events(name, service), timeout_s)


@contextmanager
def running_collector(
    binary: Path,
    directory: Path,
    configs: Sequence[str] = DEBUG,
    settings: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
) -> Iterator[Collector]:
    """A Collector on free ports that passed its own validation and answers its health check."""
    grpc, http, scrape, health, self_metrics = free_ports(5)
    scheme = "https" if "COLLECTOR_TLS_CERT_FILE" in (settings or {}) else "http"
    events_file = directory / "events.jsonl"
    environment = {
        **os.environ,
        "COLLECTOR_OTLP_GRPC_ENDPOINT": f"{LOOPBACK}:{grpc}",
        "COLLECTOR_OTLP_HTTP_ENDPOINT": f"{LOOPBACK}:{http}",
        "COLLECTOR_PROMETHEUS_ENDPOINT": f"{LOOPBACK}:{scrape}",
        "COLLECTOR_HEALTH_ENDPOINT": f"{LOOPBACK}:{health}",
        "COLLECTOR_SELF_METRICS_HOST": LOOPBACK,
        "COLLECTOR_SELF_METRICS_PORT": str(self_metrics),
        "COLLECTOR_EVENTS_FILE": str(events_file),
        "COLLECTOR_STORAGE_DIRECTORY": str(directory / "queues"),
        **(settings or {}),
    }
    done = validated(binary, configs, environment, flags)
    if done.returncode != 0:
        raise ComponentError(f"{configs} are not valid:\n{done.stderr}")
    command = [str(binary), *_options(configs), *flags]
    with running("collector", command, directory, environment) as server:
        server.wait_ready(lambda: answers(f"http://{LOOPBACK}:{health}/"))
        yield Collector(
            otlp_http_endpoint=f"{scheme}://{LOOPBACK}:{http}",
            otlp_grpc_endpoint=f"{scheme}://{LOOPBACK}:{grpc}",
            prometheus_scrape_port=scrape,
            self_metrics_port=self_metrics,
            events_file=events_file,
            log=server.log,
            pid=server.process.pid,
        )


def validated(
    binary: Path, configs: Sequence[str], environment: Mapping[str, str], flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Let the Collector check its configuration, as an operator would before a rollout."""
    return subprocess.run(
        [str(binary), "validate", *_options(configs), *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _options(configs: Sequence[str]) -> list[str]:
    return [word for name in configs for word in ("--config", str(CONFIGS / name))]


def _events(request: dict[str, Any]) -> Iterator[Event]:
    """The log records of one line: an OTLP request in its JSON form."""
    for resource_logs in request["resourceLogs"]:
        resource = _attributes(resource_logs.get("resource", {}))
        for scope_logs in resource_logs["scopeLogs"]:
            for record in scope_logs["logRecords"]:
                yield Event(
                    name=record.get("eventName", ""),
                    body=str(_plain(record.get("body", {}))),
                    severity=record.get("severityText", ""),
                    attributes=_attributes(record),
                    resource=resource,
                    trace_id=record.get("traceId", ""),
                    span_id=record.get("spanId", ""),
                )


def _attributes(holder: dict[str, Any]) -> dict[str, object]:
    return {each["key"]: _plain(each["value"]) for each in holder.get("attributes", [])}


def _plain(value: dict[str, Any]) -> object:
    """The Python value of an OTLP ``AnyValue``; 64-bit integers are strings in its JSON form."""
    if not value:
        return None
    ((kind, content),) = value.items()
    if kind == "intValue":
        return int(content)
    if kind == "arrayValue":
        return [_plain(each) for each in content.get("values", [])]
    return content
