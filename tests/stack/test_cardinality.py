"""How many series a big installation makes, counted in a real Prometheus."""

from __future__ import annotations

from pathlib import Path

from tests.processes import wait_until
from tests.stack.collector import running_collector
from tests.stack.collector_build import collector_binary
from tests.stack.load import send_rounds
from tests.stack.prometheus import running_prometheus
from tests.stack.report import Report
from tests.stack.synthetic import Shape, SyntheticWorkers

TASKS, CHILDREN, WORKERS = 100, 32, 10
SERIES_MAX = 62_000
"""Two thousand of them are of the garbage collector, by slot and generation, as OpenTelemetry has
them."""


def test_a_hundred_tasks_on_ten_workers_of_32_children_stay_below_sixty_two_thousand_series(
    tmp_path: Path, report: Report
) -> None:
    """Every task has grown and shrunk on every worker, traced and untraced, and failed too."""
    workers = SyntheticWorkers(Shape("big", TASKS, CHILDREN))
    nodes = [f"celery-{number}@shop" for number in range(WORKERS)]
    with (
        running_collector(collector_binary(), tmp_path) as collector,
        running_prometheus(tmp_path, [collector], interval_s=5) as prometheus,
    ):
        sent = send_rounds(workers, nodes, [collector.otlp_http_endpoint], 2)
        assert sent.refused_requests == 0

        def counted() -> float:
            of_all = 'count(celery_worker_memory_bytes{job="big", celery_worker_slot="main"})'
            if sum(sample.value for sample in prometheus.query(of_all)) < WORKERS:
                return 0
            return sum(sample.value for sample in prometheus.query('count({job="big"})'))

        series = wait_until("all series are scraped", counted, 60)
        names = 'topk(6, count by (__name__) ({job="big"}))'
        most = {each.labels["__name__"]: int(each.value) for each in prometheus.query(names)}
    report.line(f"{series:.0f} series of {TASKS} tasks, {WORKERS} workers of {CHILDREN}: {most}")
    assert series < SERIES_MAX
