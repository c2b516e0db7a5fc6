"""A leak on its way to who is paged: the series, the event, and the alert with the line."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otel_celery_memory import conventions as c
from tests.processes import LOOPBACK, get, wait_until
from tests.stack.alertmanager import Alertmanager, running_alertmanager
from tests.stack.collector import Collector, running_collector
from tests.stack.collector_build import collector_binary
from tests.stack.leaking_worker import HOLDER, LINE, NODE, SERVICE, TASK, running_leaking_worker
from tests.stack.prometheus import RULES, Prometheus, running_prometheus
from tests.stack.report import Report
from tests.worker.harness import Broker, Worker, running_worker

EXPIRATION = {"COLLECTOR_METRIC_EXPIRATION": "10s"}
OF_THE_LEAK = {
    "job": SERVICE,
    "instance": NODE,
    "celery_task_name": TASK,
    "celery_memory_leak_kind": "python",
    "celery_memory_leak_where": "task",
    "celery_memory_leak_state": "leaking",
    "celery_memory_site_name": LINE,
    "celery_memory_leak_holder": HOLDER,
}


def shown(collector: Collector, metric: str) -> list[tuple[dict[str, str], float]]:
    """The series of one metric that the Collector shows to Prometheus: labels and value."""
    text = get(f"http://{LOOPBACK}:{collector.prometheus_scrape_port}/metrics")
    found = []
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if name == metric:
            pairs, _, value = rest.rpartition("} ")
            labels = dict(pair.split("=", 1) for pair in pairs.split('",'))
            found.append(({key: each.strip('"') for key, each in labels.items()}, float(value)))
    return found


def test_a_verdict_is_series_with_task_place_and_holder_and_an_event_in_words(
    tmp_path: Path,
) -> None:
    with running_collector(collector_binary(), tmp_path, settings=EXPIRATION) as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_http_endpoint}
        with running_leaking_worker(tmp_path, environ):
            rate = (OF_THE_LEAK, 10_445)
            wait_until(
                "the rate of a leak",
                lambda: rate in shown(collector, "celery_memory_leak_rate_bytes"),
                30,
            )
            assert (OF_THE_LEAK, 1) in shown(collector, "celery_memory_leak_active")
            slot = {"job": SERVICE, "instance": NODE, "celery_worker_slot": "0"}
            assert shown(collector, "celery_memory_exhaustion_time_seconds") == [(slot, 1_800)]
        # It was ended, and said so.
        wait_until("all events", lambda: len(collector.events(c.LEAK.name, SERVICE)) == 5, 30)
    told = [
        (each.attributes[c.LEAK_STATE], each.attributes[c.LEAK_KIND], each.severity)
        for each in collector.events(c.LEAK.name, SERVICE)
    ]
    assert told == [
        ("suspected", "python", "INFO"),
        ("leaking", "python", "WARN"),
        ("leaking", "file_descriptors", "WARN"),
        ("ended", "python", "INFO"),
        ("ended", "file_descriptors", "INFO"),
    ]
    event = collector.events(c.LEAK.name, SERVICE)[1]
    assert event.body.startswith(f"{TASK} leaks 10.2 KiB a run in runs that fail (")
    assert set(event.attributes) >= set(c.LEAK.attributes)


@dataclass(frozen=True)
class Paging:
    """What stands between a worker and who is paged."""

    collector: Collector
    prometheus: Prometheus
    alertmanager: Alertmanager

    def alert(self, name: str, service: str = SERVICE, **labels: str) -> Mapping[str, Any]:
        """The alert that fires with these labels; empty if none does."""
        for alert in self.alertmanager.alerts():
            if {"alertname": name, "job": service, **labels}.items() <= alert["labels"].items():
                return alert
        return {}


@pytest.fixture
def paging(tmp_path: Path) -> Iterator[Paging]:
    with ExitStack() as held:
        places = [tmp_path / name for name in ("alertmanager", "collector", "prometheus")]
        for place in places:
            place.mkdir()
        alertmanager = held.enter_context(running_alertmanager(places[0]))
        collector = held.enter_context(
            running_collector(collector_binary(), places[1], settings=EXPIRATION)
        )
        prometheus = held.enter_context(
            running_prometheus(
                places[2],
                [collector],
                alertmanager=alertmanager.address,
                rules=f"{RULES}/*.yaml",
            )
        )
        yield Paging(collector, prometheus, alertmanager)


def test_a_leak_raises_the_alerts_with_its_line_and_its_fix_ends_it(
    paging: Paging, tmp_path: Path, report: Report
) -> None:
    leaking = 'job_leak:celery_memory_leak_rate_bytes:leaking{job="leaks"}'
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": paging.collector.otlp_http_endpoint}
    with running_leaking_worker(tmp_path, environ):
        leak = wait_until(
            "CeleryTaskLeaks",
            lambda: paging.alert("CeleryTaskLeaks", celery_memory_leak_kind="python"),
            180,
        )
        near = wait_until("CeleryLeakNearLimit", lambda: paging.alert("CeleryLeakNearLimit"), 240)
        assert paging.alert("CeleryTaskLeaks", celery_memory_leak_kind="file_descriptors")
    for alert in (leak, near):
        report.line(f"{alert['labels']['alertname']}: {alert['annotations']}")
        assert alert["labels"]["celery_task_name"] == TASK
        assert f"{TASK} " in alert["annotations"]["description"]
        assert f" leaks at {LINE} (python)" in alert["annotations"]["summary"]
        assert f" It is held by {HOLDER}. " in alert["annotations"]["description"]
        assert " reaches its limit in about 30m 0s." in alert["annotations"]["description"]
        assert "10.2kiB" in alert["annotations"]["description"]
    # The alert itself goes on for the five minutes that it keeps firing for.
    wait_until("no leak is left", lambda: not paging.prometheus.query(leaking), 120)
    ended = 'celery_memory_leak_active{job="leaks", celery_memory_leak_state="ended"}'
    assert {each.value for each in paging.prometheus.query(f"last_over_time({ended}[5m])")} == {0}


SHOP = "shop-with-a-leak"
REMEMBER = "tests.worker.app.remember"


TASKS = Path(__file__).parent.parent / "worker" / "app.py"


def line_of(marker: str) -> str:
    """Where the line with this comment is in the tasks of the tests, as a site's name ends."""
    lines = TASKS.read_text(encoding="utf-8").splitlines()
    (number,) = [at for at, line in enumerate(lines, start=1) if line.endswith(f"# {marker}")]
    return f"{TASKS.name}:{number}"


@contextmanager
def shop(
    paging: Paging, redis_url: str, directory: Path, environ: Mapping[str, str]
) -> Iterator[Worker]:
    """A worker with its defaults, at work: eight runs a second that leak and eight that do not."""
    settings = {
        "OTEL_SERVICE_NAME": SHOP,
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "1",
        **environ,
    }
    directory.mkdir()
    with running_worker(
        Broker.redis(redis_url),
        directory,
        paging.collector.otlp_http_endpoint,
        arguments=["--concurrency=1"],
        environ=settings,
        name="shop",
    ) as worker:
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.125):
                worker.send("remember", 128 << 10, ignore_result=True)
                worker.send("noop", ignore_result=True)

        load = threading.Thread(target=work, daemon=True)
        load.start()
        try:
            yield worker
        finally:
            over.set()
            load.join()
        worker.stop()


def test_a_leak_in_a_real_worker_pages_with_its_line_until_the_fix_is_deployed(
    paging: Paging, redis_url: str, tmp_path: Path, report: Report
) -> None:
    line = line_of("the line that is fixed")

    def with_line() -> Mapping[str, Any]:
        """The alert, once it names a line."""
        alert = paging.alert("CeleryTaskLeaks", SHOP)
        named = alert.get("labels", {}).get("celery_memory_site_name", "")
        return alert if named.endswith(line) else {}

    with shop(paging, redis_url, tmp_path / "leaking", {}):
        leak = wait_until("CeleryTaskLeaks", with_line, 600)
    report.line(f"{leak['labels']['alertname']}: {leak['annotations']}")
    assert leak["annotations"]["summary"].startswith(f"{REMEMBER} leaks at ")
    assert f"{line} (" in leak["annotations"]["summary"]
    assert "tests.worker.app.KEPT" in leak["annotations"]["description"]
    leaking = f'job_leak:celery_memory_leak_rate_bytes:leaking{{job="{SHOP}"}}'
    runs = f'sum(increase(celery_task_memory_rss_delta_bytes_count{{job="{SHOP}"}}[30s])) > 50'
    with shop(paging, redis_url, tmp_path / "fixed", {"TEST_FIXED": "1"}):
        # The alert itself goes on for the five minutes that it keeps firing for.
        wait_until("no leak is left", lambda: not paging.prometheus.query(leaking), 120)
        wait_until("the fixed worker is at work", lambda: paging.prometheus.query(runs), 120)
        assert not paging.prometheus.query(leaking)
