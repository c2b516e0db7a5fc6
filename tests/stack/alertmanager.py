"""Runs Alertmanager on deploy/alertmanager.yml and asks it which alerts it has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import LOOPBACK, Server, answers, free_ports, require, running

CONFIG = Path(__file__).parents[2] / "deploy" / "alertmanager.yml"


@dataclass(frozen=True)
class Alertmanager:
    """A running Alertmanager; ``address`` is what Prometheus is told."""

    address: str
    server: Server

    def alerts(self) -> list[Mapping[str, Any]]:
        """What it has now, inhibited ones too, as its API tells it."""
        answer = self.server.get(f"http://{self.address}/api/v2/alerts")
        told: list[Mapping[str, Any]] = json.loads(answer)
        return told


@contextmanager
def running_alertmanager(directory: Path) -> Iterator[Alertmanager]:
    """An Alertmanager on a free port, with its data in ``directory``, alone in its cluster."""
    (port,) = free_ports(1)
    address = f"{LOOPBACK}:{port}"
    command = [
        require("prometheus-alertmanager", "the package prometheus-alertmanager"),
        f"--config.file={CONFIG}",
        f"--storage.path={directory / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    with running("alertmanager", command, directory) as server:
        server.wait_ready(lambda: answers(f"http://{address}/-/ready"))
        yield Alertmanager(address, server)
