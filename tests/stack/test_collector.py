"""What goes into the Collector over OTLP comes out under the names that dashboards rely on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import redis
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcMetricExporter,
)
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.processes import wait_until

from .collector import Collector
from .prometheus import Prometheus

NODE = "celery@synthetic"
SCOPE = "otel_celery_memory"


def resource(service: str) -> Resource:
    """A worker's resource; every test has a service of its own, as the servers are shared."""
    names = {"service.name": service, "service.namespace": "shop", "host.name": "web-1"}
    return Resource({**names, "service.instance.id": NODE})


@contextmanager
def meter(service: str, exporter: MetricExporter) -> Iterator[Meter]:
    """A meter whose measurements are exported once, at the end."""
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
    provider = MeterProvider([reader], resource(service))
    try:
        yield provider.get_meter(SCOPE, "1.2.3")
        # A reader without an interval has no thread, and without one shutdown exports nothing.
        assert provider.force_flush(10_000)
    finally:
        provider.shutdown()


def http(collector: Collector) -> MetricExporter:
    return OTLPMetricExporter(f"{collector.otlp_http_endpoint}/v1/metrics")


def send_worker_memory(service: str, exporter: MetricExporter, rss_bytes: int) -> None:
    with meter(service, exporter) as worker:
        memory = worker.create_up_down_counter("celery.worker.memory", "By")
        memory.add(rss_bytes, {"celery.worker.slot": "main"})


def test_http_metric_reaches_prometheus(collector: Collector, prometheus: Prometheus) -> None:
    """Memory sent over OTLP/HTTP is one series with the worker as job and instance."""
    send_worker_memory("over-http", http(collector), 123_456_789)
    (sample,) = prometheus.wait_for('celery_worker_memory_bytes{job="shop/over-http"}')
    assert sample.value == 123_456_789
    assert sample.labels == {
        "__name__": "celery_worker_memory_bytes",
        "job": "shop/over-http",
        "instance": NODE,
        "celery_worker_slot": "main",
    }


def test_grpc_metric_reaches_prometheus(collector: Collector, prometheus: Prometheus) -> None:
    """OTLP/gRPC ends in the same series as OTLP/HTTP."""
    exporter = GrpcMetricExporter(collector.otlp_grpc_endpoint, insecure=True)
    send_worker_memory("over-grpc", exporter, 4096)
    (sample,) = prometheus.wait_for('celery_worker_memory_bytes{job="shop/over-grpc"}')
    assert sample.value == 4096
    assert sample.labels["celery_worker_slot"] == "main"


def test_resource_is_in_target_info(collector: Collector, prometheus: Prometheus) -> None:
    """What else the resource says is a label of target_info, and can be joined."""
    send_worker_memory("with-host", http(collector), 4096)
    (sample,) = prometheus.wait_for(
        'celery_worker_memory_bytes{job="shop/with-host"}'
        " * on (job, instance) group_left (host_name) target_info"
    )
    assert sample.labels["host_name"] == "web-1"


class Named(NamedTuple):
    """A metric of the contract, and a series that it becomes in Prometheus."""

    instrument: str
    metric: str
    unit: str
    series: str


@pytest.mark.parametrize(
    "named",
    [
        Named(
            "histogram",
            "celery.task.memory.rss.delta",
            "By",
            "celery_task_memory_rss_delta_bytes_sum",
        ),
        Named(
            "counter",
            "celery.task.memory.measured",
            "{task}",
            "celery_task_memory_measured_total",
        ),
        Named("gauge", "celery.memory.leak.active", "{leak}", "celery_memory_leak_active"),
        Named("gauge", "celery.memory.leak.rate", "By/{task}", "celery_memory_leak_rate_bytes"),
        Named(
            "gauge",
            "celery.memory.site.rate",
            "By/min",
            "celery_memory_site_rate_bytes_per_min",
        ),
        Named(
            "gauge", "celery.memory.exhaustion.time", "s", "celery_memory_exhaustion_time_seconds"
        ),
        Named(
            "gauge", "celery.memory.tracing.overhead", "1", "celery_memory_tracing_overhead_ratio"
        ),
    ],
    ids=lambda named: named.metric,
)
def test_metric_names(collector: Collector, prometheus: Prometheus, named: Named) -> None:
    """A metric's instrument and unit give its name in Prometheus the suffix they stand for."""
    with meter(named.metric, http(collector)) as worker:
        if named.instrument == "histogram":
            worker.create_histogram(named.metric, named.unit).record(7)
        elif named.instrument == "counter":
            worker.create_counter(named.metric, named.unit).add(7)
        else:
            worker.create_gauge(named.metric, named.unit).set(7)
    (sample,) = prometheus.wait_for(f'{named.series}{{job="shop/{named.metric}"}}')
    assert sample.value == 7


def test_exemplar_reaches_prometheus(collector: Collector, prometheus: Prometheus) -> None:
    """A bucket of a task's histogram leads to the trace of a task that fell into it."""
    tracer = TracerProvider(resource=resource("with-exemplar")).get_tracer(SCOPE)
    with (
        meter("with-exemplar", http(collector)) as worker,
        tracer.start_as_current_span("run") as s,
    ):
        worker.create_histogram("celery.task.memory.rss.peak", "By").record(5000)
        trace_id = f"{s.get_span_context().trace_id:032x}"
    series = 'celery_task_memory_rss_peak_bytes_bucket{job="shop/with-exemplar"}'
    exemplars = wait_until(f"an exemplar of {series}", lambda: prometheus.exemplars(series), 20)
    assert {each["trace_id"] for each in exemplars} == {trace_id}


def test_event_reaches_file(collector: Collector) -> None:
    """An event is in the Collector's file with its attributes, and with its name as one of them."""
    site: dict[str, str | int] = {
        "celery.memory.site.name": "app/feeds.py:41",
        "celery.memory.site.size": 1_048_576,
    }
    provider = LoggerProvider(resource("with-events"))
    exporter = OTLPLogExporter(f"{collector.otlp_http_endpoint}/v1/logs")
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    try:
        provider.get_logger(SCOPE).emit(
            event_name="celery.memory.allocation_site",
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body="app/feeds.py:41 keeps 1.0 MiB",
            attributes=site,
        )
    finally:
        provider.shutdown()
    (event,) = collector.wait_for_events("celery.memory.allocation_site", service="with-events")
    assert event.attributes == {**site, "event.name": "celery.memory.allocation_site"}
    assert event.body == "app/feeds.py:41 keeps 1.0 MiB"
    assert event.severity == "INFO"
    assert event.resource["service.instance.id"] == NODE


def test_spans_are_accepted(collector: Collector) -> None:
    """A client that sends its spans to the same endpoint gets no error."""
    ended = InMemorySpanExporter()
    provider = TracerProvider(resource=resource("with-spans"))
    provider.add_span_processor(SimpleSpanProcessor(ended))
    provider.get_tracer(SCOPE).start_span("run").end()
    exporter = OTLPSpanExporter(f"{collector.otlp_http_endpoint}/v1/traces")
    assert exporter.export(ended.get_finished_spans()) is SpanExportResult.SUCCESS


def test_redis_stores(redis_url: str) -> None:
    """The broker of the stack starts empty and takes writes at its URL."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.set("key", "value")
