"""Runs VictoriaLogs and asks it for events, as Grafana's data source for it does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.processes import LOOPBACK, Server, answers, free_ports, running
from tests.stack.go_build import VICTORIALOGS, tool_binary


@dataclass(frozen=True)
class VictoriaLogs:
    """A running VictoriaLogs."""

    url: str
    server: Server

    @property
    def otlp_endpoint(self) -> str:
        """Where it takes OTLP; an exporter adds ``/v1/logs``."""
        return f"{self.url}/insert/opentelemetry"

    def events(self, logsql: str, begin_s: float, end_s: float) -> list[dict[str, str]]:
        """The events that a query selects, each with its fields; all values are text there."""
        text = self.ask("query", {"query": logsql, "start": begin_s, "end": end_s})
        return [json.loads(line) for line in text.splitlines()]

    def stats(self, logsql: str, begin_s: float, end_s: float) -> list[dict[str, Any]]:
        """The series of a query that ends in ``stats``, one value each, as Prometheus's JSON."""
        asked = {"query": logsql, "start": begin_s, "end": end_s, "time": end_s}
        return self._series("stats_query", asked)

    def stats_range(
        self, logsql: str, begin_s: float, end_s: float, step_s: float
    ) -> list[dict[str, Any]]:
        """The series of a query that ends in ``stats``, a value each step."""
        asked = {"query": logsql, "start": begin_s, "end": end_s, "step": f"{step_s:.0f}s"}
        return self._series("stats_query_range", asked)

    def ask(self, path: str, parameters: Mapping[str, object]) -> str:
        """What one of its queries answers."""
        return self.server.get(f"{self.url}/select/logsql/{path}?{urlencode(parameters)}")

    def _series(self, path: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = json.loads(self.ask(path, parameters))["data"]["result"]
        return result


@contextmanager
def running_victorialogs(directory: Path) -> Iterator[VictoriaLogs]:
    """A VictoriaLogs on a free port, with its data in ``directory``."""
    (port,) = free_ports(1)
    command = [
        str(tool_binary(VICTORIALOGS)),
        f"-httpListenAddr={LOOPBACK}:{port}",
        f"-storageDataPath={directory / 'data'}",
        "-loggerLevel=WARN",
    ]
    with running("victorialogs", command, directory) as server:
        server.wait_ready(lambda: answers(f"http://{LOOPBACK}:{port}/health"))
        yield VictoriaLogs(f"http://{LOOPBACK}:{port}", server)
