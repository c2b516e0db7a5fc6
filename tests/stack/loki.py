"""Runs Loki on deploy/loki.yaml and asks it for events, as Grafana does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.processes import LOOPBACK, answers, free_ports, get, running
from tests.stack.go_build import LOKI, tool_binary

CONFIG = Path(__file__).parents[2] / "deploy" / "loki.yaml"


@dataclass(frozen=True)
class Loki:
    """A running Loki."""

    url: str

    @property
    def otlp_endpoint(self) -> str:
        """Where it takes OTLP."""
        return f"{self.url}/otlp"

    def query_range(
        self, logql: str, start_s: float, end_s: float, step_s: float
    ) -> list[dict[str, Any]]:
        """The streams or series of a query over a time, as Loki's JSON has them."""
        window = {"start": int(start_s * 1e9), "end": int(end_s * 1e9), "step": f"{step_s:.0f}s"}
        return self.ask("query_range", {"query": logql, "limit": 1000, **window})

    def query(self, logql: str, at_s: float) -> list[dict[str, Any]]:
        """The series of an instant query."""
        return self.ask("query", {"query": logql, "time": int(at_s * 1e9)})

    def ask(self, path: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        """The result of one of Loki's queries, as its JSON has it."""
        answer = json.loads(get(f"{self.url}/loki/api/v1/{path}?{urlencode(parameters)}"))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


@contextmanager
def running_loki(directory: Path) -> Iterator[Loki]:
    """A Loki on free ports, with its data in ``directory``."""
    http, grpc = free_ports(2)
    config = directory / "loki.yaml"
    text = CONFIG.read_text(encoding="utf-8").replace("/loki/", f"{directory}/data/")
    config.write_text(text.replace("path_prefix: /loki", f"path_prefix: {directory}/data"))
    command = [
        str(tool_binary(LOKI)),
        f"-config.file={config}",
        f"-server.http-listen-address={LOOPBACK}",
        f"-server.http-listen-port={http}",
        f"-server.grpc-listen-address={LOOPBACK}",
        f"-server.grpc-listen-port={grpc}",
        "-log.level=warn",
    ]
    with running("loki", command, directory) as server:
        server.wait_ready(lambda: answers(f"http://{LOOPBACK}:{http}/ready"))
        yield Loki(f"http://{LOOPBACK}:{http}")
