"""A real worker on Redis, through the real Collector, into a real Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import wait_until
from tests.stack.collector import Collector, Event
from tests.stack.prometheus import Prometheus, Sample
from tests.worker.harness import Broker, Worker, running_worker

SERVICE, SAMPLED = "shop", "sampled"
MIB = 1 << 20


@pytest.fixture(scope="module")
def worker(
    collector: Collector,
    prometheus: Prometheus,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Worker]:
    """A worker with a leak, a spike and a healthy task, some runs of each done."""
    broker = Broker.redis(redis_url)
    environ = {
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_CELERY_MEMORY_TRACING": "always",
        # Ten intervals count, and on a busy machine a window may come every twenty seconds only.
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "10",
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "1",
    }
    directory = tmp_path_factory.mktemp("worker")
    with running_worker(
        broker, directory, collector.otlp_http_endpoint, environ=environ, name="stack"
    ) as running:
        _run_some(running)
        yield running
        running.stop()


@pytest.fixture(scope="module")
def sampled(
    collector: Collector,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Worker]:
    """A worker as it is without settings, with the same tasks."""
    environ = {
        "OTEL_SERVICE_NAME": SAMPLED,
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "1",
    }
    directory = tmp_path_factory.mktemp("sampled")
    with running_worker(
        Broker.redis(redis_url),
        directory,
        collector.otlp_http_endpoint,
        environ=environ,
        name="sampled",
    ) as running:
        _run_some(running)
        yield running
        running.stop()


def _run_some(worker: Worker) -> None:
    """Each task a dozen times: the first run in each of two children counts as its warm-up."""
    for _ in range(12):
        worker.run("keep", MIB)
        # Beyond 32 MiB malloc always gives back; below it may keep as much for later.
        worker.run("free", 64 * MIB)
        worker.run("noop")


def test_the_memory_of_every_process_is_in_prometheus_under_the_name_dashboards_use(
    worker: Worker, prometheus: Prometheus
) -> None:
    samples = prometheus.wait_for(
        f'celery_worker_memory_bytes{{job="{SERVICE}"}} > 0 and on() '
        f'count(celery_worker_memory_bytes{{job="{SERVICE}"}}) == 4'
    )
    slots = {sample.labels["celery_worker_slot"] for sample in samples}
    assert slots == {"main", "reporter", "0", "1"}
    assert {sample.labels["instance"] for sample in samples} == {worker.node}


@pytest.mark.parametrize("metric", ["rss_delta", "rss_retained"])
def test_net_rss_by_task_is_in_prometheus_and_names_the_leaking_task_first(
    worker: Worker, prometheus: Prometheus, metric: str
) -> None:
    (sample,) = prometheus.wait_for(
        f"{_first(f'celery_task_memory_{metric}', SERVICE)} > {7 * MIB}"
    )
    assert sample.labels == {"celery_task_name": "tests.worker.app.keep"}


def test_net_memory_by_the_allocators_is_in_prometheus_and_names_the_leaking_task_first(
    sampled: Worker, prometheus: Prometheus
) -> None:
    """In a worker without settings: a run that is traced is no sample."""
    retained = "celery_task_heap_retained"

    def leading() -> list[Sample]:
        # A sample of the runs, the more of them the rarer, within the budget.
        sampled.run("keep", MIB)
        return prometheus.query(f"{_first(retained, SAMPLED)} > {7 * MIB}")

    (sample,) = wait_until("more than seven runs are sampled", leading, 120)
    assert sample.labels == {"celery_task_name": "tests.worker.app.keep"}
    samples = prometheus.query(
        f'sum by (celery_task_name) ({retained}_bytes_count{{celery_memory_direction!="warm_up",'
        f'celery_task_name="tests.worker.app.keep",job="{SAMPLED}"}})'
    )
    net = prometheus.query(_first(retained, SAMPLED))
    assert net[0].value / samples[0].value == pytest.approx(MIB, rel=0.05)


def _first(metric: str, service: str) -> str:
    """The task with the largest net sum of bytes."""
    series, job = f"{metric}_bytes_sum", f'job="{service}"'
    summed = f"sum by (celery_task_name) ({series}"
    return (
        f'topk(1, {summed}{{celery_memory_direction="grow",{job}}})'
        f' - ({summed}{{celery_memory_direction="shrink",{job}}}) or 0 * {summed}{{{job}}})))'
    )


@pytest.mark.parametrize(
    "series",
    [
        "celery_task_memory_rss_delta_bytes_bucket",
        "celery_task_memory_rss_peak_bytes_sum",
        "celery_task_memory_traced_delta_bytes_sum",
        "celery_task_memory_traced_peak_bytes_count",
        "celery_task_memory_measured_total",
        "celery_worker_memory_limit_bytes",
        "celery_worker_memory_virtual_bytes",
        "celery_worker_open_files",
        "celery_worker_heap_blocks",
        "celery_memory_frames_dropped_total",
        "celery_memory_reporter_restarts_total",
    ],
)
def test_each_metric_arrives_under_its_prometheus_name(
    worker: Worker, prometheus: Prometheus, series: str
) -> None:
    assert prometheus.wait_for(f'{series}{{job="{SERVICE}"}}')


def test_site_events_are_in_the_collectors_file_with_their_name_as_an_attribute(
    worker: Worker, collector: Collector
) -> None:
    source = (Path(__file__).parents[1] / "worker" / "app.py").read_text().splitlines()
    line = next(i for i, text in enumerate(source, 1) if "# the leaking line" in text)

    def naming_the_line() -> Event | None:
        # A few runs are looked at now and then: how it ranks is for tests with more of them.
        worker.run("keep", MIB)
        events = collector.events("celery.memory.allocation_site", service=SERVICE)
        # What the whole process has grown by belongs to no task.
        of_runs = (e for e in events if e.attributes["celery.memory.site.window"] == "complete")
        return next((e for e in of_runs if e.attributes["code.line.number"] == line), None)

    found = wait_until("the leaking line is named", naming_the_line, 180)
    assert found is not None
    assert found.attributes["event.name"] == "celery.memory.allocation_site"
    assert found.attributes["celery.task.name"] == "tests.worker.app.keep"
    assert found.attributes["celery.memory.site.size"] == pytest.approx(MIB, rel=0.01)
