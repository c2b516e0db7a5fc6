"""A real worker sends to the real Collector as a file of declarative configuration says."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

from tests.otel.declaring import written
from tests.processes import LOOPBACK, wait_until
from tests.stack.collector import Collector
from tests.worker.harness import Broker, running_worker

NOWHERE = "http://127.0.0.1:9"
FILE = """
file_format: "1.1"
resource:
  attributes:
    - name: service.name
      value: declared
meter_provider:
  readers:
    - periodic:
        interval: 1000
        exporter:
          otlp_grpc:
            endpoint: GRPC
  views:
    - selector:
        instrument_name: celery.worker.memory.virtual
      stream:
        aggregation:
          drop:
    - selector:
        instrument_name: celery.task.memory.rss.peak
      stream:
        aggregation:
          explicit_bucket_histogram:
            boundaries: [1234.0]
logger_provider:
  processors:
    - batch:
        schedule_delay: 200
        exporter:
          otlp_http:
            endpoint: ENDPOINT/v1/logs
"""


def test_metrics_over_grpc_events_over_http_and_the_views_are_the_file_s(
    collector: Collector, redis_url: str, tmp_path: Path
) -> None:
    text = FILE.replace("GRPC", collector.otlp_grpc_endpoint)
    path = written(tmp_path, collector.otlp_http_endpoint, text)
    scrape = f"http://{LOOPBACK}:{collector.prometheus_scrape_port}/metrics"

    def series() -> list[str]:
        with urlopen(scrape, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return [line for line in lines if 'job="declared"' in line]

    def counted() -> list[str]:
        found = series()
        peak = "celery_task_memory_rss_peak"
        return found if any(line.startswith(peak) for line in found) else []

    with running_worker(
        Broker.redis(redis_url),
        tmp_path,
        NOWHERE,
        arguments=["--concurrency=1"],
        environ={"OTEL_CONFIG_FILE": path},
        name="declared",
    ) as worker:
        worker.run("noop")
        worker.send("die", 9)
        (lost, *_) = collector.wait_for_events("celery.worker.process_lost", "declared", 60)
        found = wait_until("the run is counted", counted, 60)
        worker.stop()
    assert lost.resource["service.instance.id"] == "declared@test"
    names = {line.partition("{")[0] for line in found}
    assert "celery_worker_memory_bytes" in names
    assert "celery_worker_memory_virtual_bytes" not in names
    assert any("_bucket{" in line and 'le="1234"' in line for line in found)
