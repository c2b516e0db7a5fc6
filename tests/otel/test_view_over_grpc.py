"""A real worker that sends over gRPC to the view, whose memory has a bound."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from tests.processes import LOOPBACK, Server, answers, free_ports, get, running, wait_until
from tests.worker.harness import Start

METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
BOMB_BYTES = 192 << 20
GROWTH_BYTES_MAX = 96 << 20
"""For eight requests of the largest size, and what Python and gRPC need besides."""


@dataclass(frozen=True)
class View:
    """A running view."""

    page: str
    grpc_port: int
    server: Server

    def snapshot(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(get(f"{self.page}snapshot.json"))
        return found


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    page, otlp, over_grpc = free_ports(3)
    command = [*(sys.executable, "-m", "otel_celery_memory.cli", "view")]
    command += ["--port", str(page), "--otlp-port", str(otlp), "--grpc-port", str(over_grpc)]
    with running("view", command, tmp_path) as server:
        url = f"http://{LOOPBACK}:{page}/"
        server.wait_ready(lambda: answers(url))
        yield View(url, over_grpc, server)


def test_a_worker_that_exports_over_grpc_is_on_the_page_until_its_end(
    start: Start, view: View
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    endpoint = f"http://{LOOPBACK}:{view.grpc_port}"
    assert f"OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}" in (
        view.server.log.read_text()
    )
    with start(arguments=["--concurrency=1"], environ=environ, endpoint=endpoint) as worker:
        for _ in range(5):
            worker.run("noop")
        worker.stop()

    def shown() -> list[Any]:
        found = [
            (each["node"], each["state"], [(task["name"], task["runs"]) for task in each["tasks"]])
            for each in view.snapshot()["workers"]
        ]
        return [each for each in found if each[1] == "ended"]

    assert wait_until("the worker has shut down", shown, 60) == [
        ("w@test", "ended", [("tests.worker.app.noop", 5)])
    ]
    assert view.server.process.poll() is None


def test_a_message_that_unpacks_to_much_more_than_is_taken_costs_no_such_memory(view: View) -> None:
    process = psutil.Process(view.server.process.pid)
    before = process.memory_info().rss
    unlimited = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"{LOOPBACK}:{view.grpc_port}", unlimited) as channel:
        export = channel.unary_unary(METRICS)
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as refused:
                export(bytes(BOMB_BYTES), timeout=300, compression=grpc.Compression.Gzip)
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert export(b"", timeout=300) == b""
    (peak,) = (
        int(line.split()[1]) << 10
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    assert peak - before < GROWTH_BYTES_MAX
