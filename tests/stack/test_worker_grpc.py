"""A real worker that speaks OTLP over gRPC: metrics, lines and a killed child get through."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.stack.collector import Collector
from tests.stack.prometheus import Prometheus
from tests.worker.harness import Broker, children_of, running_worker

SERVICE = "shop-grpc"
MIB = 1 << 20


def test_over_grpc_metrics_lines_and_a_killed_child_arrive_as_over_http(
    collector: Collector, prometheus: Prometheus, redis_url: str, tmp_path: Path
) -> None:
    environ = {
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_CELERY_MEMORY_TRACING": "always",
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "2",
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "1",
    }
    endpoint = collector.otlp_grpc_endpoint
    broker = Broker.redis(redis_url)
    with running_worker(broker, tmp_path, endpoint, environ=environ, name="grpc") as worker:
        for _ in range(5):
            worker.run("keep", MIB)
        (child, *_) = children_of(worker.pid)
        os.kill(child, signal.SIGKILL)
        (lost,) = collector.wait_for_events("celery.worker.process_lost", SERVICE)
        sites = collector.wait_for_events("celery.memory.allocation_site", SERVICE)
        worker.stop()
    assert lost.attributes["process.pid"] == child
    assert sites[0].attributes["celery.task.name"] == "tests.worker.app.keep"
    measured = f'sum(celery_task_memory_measured_total{{job="{SERVICE}"}})'
    (sample,) = prometheus.wait_for(f"{measured} == 5")
    assert sample.value == 5
    assert "Traceback" not in worker.log()
