"""Runs a Prometheus that scrapes the Collector every second, and asks it questions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.processes import LOOPBACK, answers, free_ports, get, require, running, wait_until

QUERY_TIMEOUT_S = 20.0
CONFIG = """\
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: collector
    # `job` and `instance` are the worker's service and node name, not the Collector's.
    honor_labels: true
    static_configs:
      - targets: ["{target}"]
"""


@dataclass(frozen=True)
class Sample:
    """One series of an instant query's answer."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str
    log: Path
    pid: int

    def query(self, promql: str) -> list[Sample]:
        """The series that ``promql`` selects now."""
        answer = json.loads(get(f"{self.url}/api/v1/query?{urlencode({'query': promql})}"))
        result = answer["data"]["result"]
        return [Sample(each["metric"], float(each["value"][1])) for each in result]

    def exemplars(self, promql: str) -> list[Mapping[str, str]]:
        """The labels of the exemplars seen in the last minute on the series of ``promql``."""
        now = time.time()
        window = {"query": promql, "start": now - 60, "end": now + 1}
        answer = json.loads(get(f"{self.url}/api/v1/query_exemplars?{urlencode(window)}"))
        return [each["labels"] for series in answer["data"] for each in series["exemplars"]]

    def wait_for(self, promql: str, timeout_s: float = QUERY_TIMEOUT_S) -> list[Sample]:
        """The series that ``promql`` selects, as soon as there is one."""
        return wait_until(f"a series {promql}", lambda: self.query(promql), timeout_s)


@contextmanager
def running_prometheus(scrape_port: int, directory: Path) -> Iterator[Prometheus]:
    """A Prometheus on a free port, with its data in ``directory``."""
    (port,) = free_ports(1)
    config = directory / "prometheus.yml"
    config.write_text(CONFIG.format(target=f"{LOOPBACK}:{scrape_port}"), encoding="utf-8")
    command = [
        require("prometheus", "the package prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--enable-feature=exemplar-storage",  # off by default, and silently so
        "--log.level=warn",
    ]
    with running("prometheus", command, directory) as server:
        server.wait_ready(lambda: answers(f"http://{LOOPBACK}:{port}/-/ready"))
        yield Prometheus(f"http://{LOOPBACK}:{port}", server.log, server.process.pid)
