"""Runs Prometheus on deploy/prometheus.yml, and asks it questions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.processes import LOOPBACK, Server, answers, free_ports, running, wait_until
from tests.stack.collector import Collector
from tests.stack.go_build import PROMETHEUS, tool_binary

CONFIG = Path(__file__).parents[2] / "deploy" / "prometheus.yml"
RULES = Path(__file__).parents[2] / "grafana" / "alerts"
SERIES_TIMEOUT_S = 120.0
NOBODY = f"{LOOPBACK}:9"


@dataclass(frozen=True)
class Sample:
    """One series of an instant query's answer."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Series:
    """One series of a range query's answer: times in seconds, and values."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str
    server: Server

    def query(self, promql: str, at_s: float | None = None) -> list[Sample]:
        """The series that ``promql`` selects, now or at a time."""
        asked = {"query": promql} if at_s is None else {"query": promql, "time": at_s}
        answer = json.loads(self.server.get(f"{self.url}/api/v1/query?{urlencode(asked)}"))
        result = answer["data"]["result"]
        return [Sample(each["metric"], float(each["value"][1])) for each in result]

    def query_range(self, promql: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """The series of ``promql`` over a time."""
        window = {"query": promql, "start": start_s, "end": end_s, "step": step_s}
        answer = json.loads(self.server.get(f"{self.url}/api/v1/query_range?{urlencode(window)}"))
        return [
            Series(each["metric"], tuple((float(at), float(value)) for at, value in each["values"]))
            for each in answer["data"]["result"]
        ]

    def exemplars(self, promql: str) -> list[Mapping[str, str]]:
        """The labels of the exemplars seen in the last minute on the series of ``promql``."""
        now = time.time()
        window = {"query": promql, "start": now - 60, "end": now + 1}
        answer = json.loads(
            self.server.get(f"{self.url}/api/v1/query_exemplars?{urlencode(window)}")
        )
        return [each["labels"] for series in answer["data"] for each in series["exemplars"]]

    def wait_for(self, promql: str, timeout_s: float = SERIES_TIMEOUT_S) -> list[Sample]:
        """The series that ``promql`` selects, as soon as there is one."""
        return wait_until(f"a series {promql}", lambda: self.query(promql), timeout_s)


@contextmanager
def running_prometheus(
    directory: Path,
    collectors: Sequence[Collector],
    *,
    alertmanager: str = NOBODY,
    rules: str = "",
    interval_s: int = 1,
    port: int = 0,
) -> Iterator[Prometheus]:
    """A Prometheus on a free port or on ``port``: deploy/prometheus.yml with addresses of here.

    ``rules`` is a pattern of rule files; without one there are no rules.
    """
    port = port or free_ports(1)[0]
    text = CONFIG.read_text(encoding="utf-8")
    scraped = ", ".join(f'"{LOOPBACK}:{each.prometheus_scrape_port}"' for each in collectors)
    own = [f"{LOOPBACK}:{each.self_metrics_port}" for each in collectors]
    # One that is down, for the alert that says so.
    selves = ", ".join(f'"{each}"' for each in ([*own, NOBODY] if rules else own))
    every = f"scrape_interval: {interval_s}s\n  scrape_timeout: {interval_s}s"
    for shipped, here in (
        ('"collector:8889"', scraped),
        ('"collector:8888"', selves),
        ("alertmanager:9093", alertmanager),
        ("/etc/prometheus/rules/*.yaml", rules or f"{directory}/none/*.yaml"),
        ("scrape_interval: 15s", every),
    ):
        assert shipped in text, shipped
        text = text.replace(shipped, here)
    config = directory / "prometheus.yml"
    config.write_text(text, encoding="utf-8")
    command = [
        str(tool_binary(PROMETHEUS)),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",  # off by default, and silently so
        "--log.level=warn",
    ]
    with running("prometheus", command, directory) as server:
        server.wait_ready(lambda: answers(f"http://{LOOPBACK}:{port}/-/ready"))
        yield Prometheus(f"http://{LOOPBACK}:{port}", server)
