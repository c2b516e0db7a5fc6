"""Pushed to Prometheus over OTLP, the series are those that a scrape would have found.

But for the spelling of ``le``, 268435456 and 2.68435456e+08, which Grafana reads as one number.
"""

from __future__ import annotations

from pathlib import Path

from tests.processes import LOOPBACK, free_ports, wait_until
from tests.stack.collector import running_collector
from tests.stack.collector_build import collector_binary
from tests.stack.load import send_rounds
from tests.stack.prometheus import Prometheus, running_prometheus
from tests.stack.synthetic import Shape, SyntheticWorkers

CONFIGS = ("collector.yaml", "debug.yaml", "prometheus.yaml")


def series_of(prometheus: Prometheus, node: str) -> set[tuple[tuple[str, str], ...]]:
    """Every series of one worker, as its labels."""
    matching = f'{{instance="{node}", __name__=~"celery_.*"}}'
    return {
        tuple(sorted((name, _spelt(name, value)) for name, value in each.labels.items()))
        for each in prometheus.query(matching)
    }


def _spelt(name: str, value: str) -> str:
    return str(float(value)) if name == "le" else value


def test_scraped_and_pushed_series_have_the_same_names_and_labels(tmp_path: Path) -> None:
    workers = SyntheticWorkers(Shape("both", tasks=2, children=1))
    scraped, pushed = tmp_path / "scraped", tmp_path / "pushed"
    scraped.mkdir()
    pushed.mkdir()
    (port,) = free_ports(1)
    push = {"PROMETHEUS_OTLP_ENDPOINT": f"http://{LOOPBACK}:{port}/api/v1/otlp"}
    with (
        running_collector(collector_binary(), scraped) as by_scrape,
        running_collector(collector_binary(), pushed, CONFIGS, push) as by_push,
        running_prometheus(tmp_path, [by_scrape], port=port) as prometheus,
    ):
        for collector, node in ((by_scrape, "scraped@shop"), (by_push, "pushed@shop")):
            assert (
                send_rounds(workers, [node], [collector.otlp_http_endpoint], 1).refused_requests
                == 0
            )
        wait_until("what is scraped", lambda: series_of(prometheus, "scraped@shop"), 30)
        wait_until("what is pushed", lambda: series_of(prometheus, "pushed@shop"), 30)
        found = {node: series_of(prometheus, node) for node in ("scraped@shop", "pushed@shop")}
    renamed = {
        tuple((name, value.replace("pushed@", "scraped@")) for name, value in each)
        for each in found["pushed@shop"]
    }
    assert renamed == found["scraped@shop"]
