"""Exporters other than OTLP, and what cannot be had, in a real worker."""

from __future__ import annotations

import re
from urllib.error import URLError
from urllib.request import urlopen

from demo.receiver import Receiver
from tests.processes import free_ports, wait_until
from tests.worker.harness import Start, measured


def test_prometheus_may_read_a_worker_s_metrics_itself(start: Start) -> None:
    (port,) = free_ports(1)
    environ = {
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
    }

    def scraped() -> str:
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())
        except (URLError, OSError):
            return ""

    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        for _ in range(3):
            worker.run("noop")
        text = wait_until(
            "the runs are counted",
            lambda: text if "celery_task_memory_measured_total{" in (text := scraped()) else None,
            60,
        )
        worker.stop()
    assert text is not None
    assert 'celery_task_name="tests.worker.app.noop"' in text
    assert "celery_worker_memory_bytes{" in text
    assert "metrics are sent to the exporter prometheus, events to http://" in worker.log()


def test_what_cannot_be_had_is_refused_in_one_line_and_otlp_is_used(
    start: Start, receiver: Receiver
) -> None:
    environ = {"OTEL_METRICS_EXPORTER": "owl", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        worker.run("noop")
        worker.stop()
    assert measured(receiver.received) == {"noop": 1}
    refused = [line for line in worker.log().splitlines() if "cannot be had" in line]
    assert [line.partition("otel_celery_memory: ")[2].partition(":")[0] for line in refused] == [
        "OTEL_METRICS_EXPORTER=owl cannot be had, otlp is used",
        "OTEL_EXPORTER_OTLP_PROTOCOL=smoke cannot be had, http/protobuf is used",
    ]


def test_the_console_has_a_line_for_each_event_and_no_json(start: Start) -> None:
    environ = {
        "OTEL_METRICS_EXPORTER": "console",
        "OTEL_LOGS_EXPORTER": "console",
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
        "OTEL_CELERY_MEMORY_TRACING": "always",
    }
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        for _ in range(10):
            worker.run("keep", 1 << 16)
        worker.send("die", 9)
        lost = (
            r"\d\d:\d\d:\d\d ERROR celery\.worker\.process_lost: worker process 0 .* was lost in "
        )
        wait_until("the loss is printed", lambda: re.search(lost, worker.log()), 60)
        site = r"\d\d:\d\d:\d\d INFO  celery\.memory\.allocation_site: \S+:\d+ left "
        wait_until("a site is printed", lambda: re.search(site, worker.log()), 60)
        worker.stop()
    log = worker.log()
    assert re.search(
        r"^\d\d:\d\d:\d\d w@test: [\d.]+ MiB in \d processes: main [\d.]+ MiB, ", log, re.M
    )
    assert re.search(r"^\d\d:\d\d:\d\d   tests\.worker\.app\.keep: \d+ runs, ", log, re.M)
    assert [line for line in log.splitlines() if line.strip() in ("{", "}", "],")] == []
