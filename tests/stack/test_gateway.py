"""A thousand workers on two nodes, two agents, two gateways, one Prometheus."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import LOOPBACK, free_ports, wait_until
from tests.stack.certificates import Certificate, made_certificate
from tests.stack.collector import Collector, running_collector
from tests.stack.collector_build import collector_binary
from tests.stack.load import Sent, send_rounds
from tests.stack.panels import STEP_S, PanelQuery, panel_queries
from tests.stack.prometheus import RULES, Prometheus, running_prometheus
from tests.stack.report import Report
from tests.stack.synthetic import Shape, SyntheticWorkers

WORKERS, TASKS, CHILDREN = 1000, 10, 4
ROUNDS, EXPORT_INTERVAL_S = 8, 15.0
TOKEN = "the-token-of-the-tests"
JOB = "crowd"


@dataclass(frozen=True)
class Crowd:
    """What a thousand workers have sent, and where it went."""

    prometheus: Prometheus
    sent: Sent
    settled_s: float
    began_s: float


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    directory = tmp_path_factory.mktemp("gateway")
    rules = directory / "rules"
    rules.mkdir()
    shutil.copy(RULES / "recording.yaml", rules)
    (port,) = free_ports(1)
    with ExitStack() as held:
        pushed_to = f"http://{LOOPBACK}:{port}/api/v1/otlp"
        certificate = made_certificate(directory)
        gateways = [_gateway(held, directory, f"gateway{n}", certificate, pushed_to) for n in "12"]
        prometheus = held.enter_context(
            running_prometheus(
                directory, gateways, rules=f"{rules}/*.yaml", interval_s=5, port=port
            )
        )
        agents = [
            _agent(held, directory, f"agent{number}", certificate, gateway)
            for number, gateway in enumerate(gateways)
        ]
        workers = SyntheticWorkers(Shape(JOB, TASKS, CHILDREN))
        nodes = [f"celery-{number}@crowd" for number in range(WORKERS)]
        began_s = time.time()
        endpoints = [each.otlp_http_endpoint for each in agents]
        sent = send_rounds(workers, nodes, endpoints, ROUNDS, EXPORT_INTERVAL_S)
        _wait_for_the_last_point(prometheus)
        settled_s = time.time() - began_s
        _wait_for_the_recorded(prometheus)
        yield Crowd(prometheus, sent, settled_s, began_s)


def _gateway(
    held: ExitStack, directory: Path, name: str, certificate: Certificate, prometheus: str
) -> Collector:
    (directory / name).mkdir()
    settings = {
        "COLLECTOR_TOKEN": TOKEN,
        "COLLECTOR_TLS_CERT_FILE": str(certificate.certificate),
        "COLLECTOR_TLS_KEY_FILE": str(certificate.key),
        "PROMETHEUS_OTLP_ENDPOINT": prometheus,
        "EVENTS_OTLP_ENDPOINT": f"http://{LOOPBACK}:9/otlp",
        "TRACES_OTLP_ENDPOINT": f"http://{LOOPBACK}:9",
        "COLLECTOR_HOST_NAME": name,
    }
    configs = ("collector.yaml", "prometheus.yaml", "gateway/gateway.yaml")
    return held.enter_context(
        running_collector(collector_binary(), directory / name, configs, settings)
    )


def _agent(
    held: ExitStack, directory: Path, name: str, certificate: Certificate, gateway: Collector
) -> Collector:
    (directory / name).mkdir()
    settings = {
        "COLLECTOR_TOKEN": TOKEN,
        "GATEWAY_OTLP_ENDPOINT": gateway.otlp_grpc_endpoint.removeprefix("https://"),
        "GATEWAY_CA_FILE": str(certificate.certificate),
        "COLLECTOR_HOST_NAME": name,
    }
    return held.enter_context(
        running_collector(collector_binary(), directory / name, ("gateway/agent.yaml",), settings)
    )


def _wait_for_the_last_point(prometheus: Prometheus) -> None:
    grown = f'celery_worker_memory_bytes{{job="{JOB}", celery_worker_slot="main"}} % {1 << 20}'
    wait_until(
        "the last round of every worker is in Prometheus",
        lambda: len(prometheus.query(f"{grown} == {ROUNDS}")) == WORKERS,
        180,
    )


def _wait_for_the_recorded(prometheus: Prometheus) -> None:
    recorded = f'job_task:celery_task_memory_retained:runs30m{{job="{JOB}"}}'
    wait_until("the recording rules have run", lambda: prometheus.query(recorded), 120)


def _sum(prometheus: Prometheus, promql: str) -> float:
    return sum(sample.value for sample in prometheus.query(promql))


def test_every_point_of_a_thousand_workers_arrives_and_none_is_refused(
    crowd: Crowd, report: Report
) -> None:
    refused = _sum(crowd.prometheus, "otelcol_receiver_refused_metric_points_total")
    failed = _sum(crowd.prometheus, "otelcol_exporter_send_failed_metric_points_total")
    series = _sum(crowd.prometheus, f'count({{job="{JOB}"}})')
    resident = crowd.prometheus.query(
        "max_over_time(otelcol_process_memory_rss_bytes[10m]) / 1048576"
    )
    lag_s = crowd.settled_s - crowd.sent.duration_s
    mean = crowd.sent.points / crowd.sent.duration_s
    report.line(
        f"gateway: {WORKERS} workers, {crowd.sent.points} points and "
        f"{crowd.sent.bytes / (1 << 20):.0f} MiB in {crowd.sent.duration_s:.0f} s "
        f"({mean:.0f} points/s), the last in Prometheus {lag_s:.1f} s later; {series:.0f} series; "
        f"refused {refused:.0f}, failed {failed:.0f}; highest RSS of agents and gateways, MiB: "
        f"{sorted(round(each.value) for each in resident)}"
    )
    assert crowd.sent.refused_requests == 0
    assert (refused, failed) == (0, 0)


def test_a_worker_has_one_writer(crowd: Crowd) -> None:
    """No series was written by both gateways: there is one of each, with all its rounds."""
    of_one = '{job="crowd", instance="celery-7@crowd"}'
    twice = f"count by (__name__, celery_worker_slot, celery_task_name) ({of_one})"
    memory = [
        each
        for each in crowd.prometheus.query(twice)
        if each.labels["__name__"] == "celery_worker_memory_bytes"
    ]
    assert [each.value for each in memory] == [1.0] * (CHILDREN + 2)


def test_the_fleets_slowest_query_is_told(crowd: Crowd, report: Report) -> None:
    """Its time is a figure, not a verdict; that it returns data is one."""
    took_s: dict[PanelQuery, float] = {}
    end_s = time.time()
    for query in panel_queries():
        if query.dashboard != "fleet" or query.source != "prometheus":
            continue
        began_s = time.monotonic()
        text = query.filled(3600)
        if query.instant:
            assert crowd.prometheus.query(text, end_s) or "exits" in text
        else:
            crowd.prometheus.query_range(text, end_s - 3600, end_s, STEP_S)
        took_s[query] = time.monotonic() - began_s
    slowest = max(took_s, key=lambda query: took_s[query])
    report.line(f"slowest of the fleet: {took_s[slowest]:.2f} s over an hour: {slowest}")
    assert took_s
