"""The gauges of sites through the Collector: their labels, and how long they stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import WindowKind
from otel_celery_memory.telemetry.events import RankedSite
from otel_celery_memory.telemetry.metrics import observe_levels
from otel_celery_memory.telemetry.site_gauges import SiteGauges
from tests.processes import LOOPBACK, get, wait_until
from tests.stack.collector import Collector, running_collector
from tests.stack.collector_build import collector_binary
from tests.stack.prometheus import Prometheus

NODE = "celery@sites"


def site(name: str) -> RankedSite:
    return RankedSite(
        rank=1,
        name=name,
        path=f"/srv/{name}",
        line=41,
        function="load",
        stack="",
        via="",
        where="",
        task="shop.grow",
        kind=WindowKind.COMPLETE,
        size_bytes=4096,
        blocks=2,
        size_change_bytes=0,
        runs=3,
        rate_bytes_per_minute=81_920,
    )


@dataclass(frozen=True)
class Sender:
    """The gauges of one worker, sent when it is asked to."""

    gauges: SiteGauges
    provider: MeterProvider

    def send(self, *names: str) -> None:
        """These places are ranked, and told."""
        self.gauges.update(map(site, names), lambda task: task)
        assert self.provider.force_flush(10_000)


@contextmanager
def sender(collector: Collector, service: str) -> Iterator[Sender]:
    exporter = OTLPMetricExporter(f"{collector.otlp_http_endpoint}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
    named = Resource({"service.name": service, "service.instance.id": NODE})
    provider = MeterProvider([reader], named, shutdown_on_exit=False)
    try:
        meter = provider.get_meter(c.SCOPE, "1.2.3")
        yield Sender(SiteGauges(partial(observe_levels, meter)), provider)
    finally:
        provider.shutdown()


def test_a_site_is_three_series_with_task_place_and_window(
    collector: Collector, prometheus: Prometheus
) -> None:
    with sender(collector, "sites") as worker:
        worker.send("app/feeds.py:41")
    found = prometheus.wait_for('{__name__=~"celery_memory_site_.*", job="sites"}')
    labels = {
        "job": "sites",
        "instance": NODE,
        "celery_task_name": "shop.grow",
        "celery_memory_site_name": "app/feeds.py:41",
        "celery_memory_site_window": "complete",
    }
    assert {each.labels["__name__"]: each.value for each in found} == {
        "celery_memory_site_size_bytes": 4096,
        "celery_memory_site_rate_bytes_per_min": 81_920,
        "celery_memory_site_runs": 3,
    }
    assert [{**each.labels, "__name__": ""} for each in found] == [{**labels, "__name__": ""}] * 3


def test_a_long_name_comes_through_the_guard_with_its_line(collector: Collector) -> None:
    name = f"app/{'ä' * 300}/feeds.py:41"
    with sender(collector, "long") as worker:
        worker.send(name)
    told = wait_until("a place of a long name", lambda: places(collector, "long"), 20)
    (place,) = told
    assert len(place.encode()) <= 200
    assert place.startswith("…ä")
    assert place.endswith("ä/feeds.py:41")


def places(collector: Collector, service: str) -> set[str]:
    """The places of one service that the Collector shows to Prometheus."""
    text = get(f"http://{LOOPBACK}:{collector.prometheus_scrape_port}/metrics")
    return {
        line.partition('celery_memory_site_name="')[2].partition('"')[0]
        for line in text.splitlines()
        if line.startswith("celery_memory_site_size_bytes{") and f'job="{service}"' in line
    }


def test_a_site_that_is_told_no_more_is_shown_no_longer_than_the_expiration(tmp_path: Path) -> None:
    settings = {"COLLECTOR_METRIC_EXPIRATION": "2s"}
    with (
        running_collector(collector_binary(), tmp_path, settings=settings) as collector,
        sender(collector, "replaced") as worker,
    ):
        worker.send("app/old.py:1")
        assert places(collector, "replaced") == {"app/old.py:1"}

        def replaced() -> bool:
            worker.send("app/new.py:1")
            return places(collector, "replaced") == {"app/new.py:1"}

        wait_until("the old place is shown no more", replaced, 30)
