"""Real workers, through the Collector of production, into panels and alerts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from demo.receiver import Received
from otel_celery_memory import conventions as c
from tests.stack.collector_build import collector_binary
from tests.stack.panels import PanelQuery, Sources, panel_queries
from tests.stack.report import Report
from tests.stack.rule_names import SHIPPED_ALERTS
from tests.stack.scaled_rules import PREFIX, SLOW
from tests.stack.scenario import Told, played
from tests.stack.servers import Stack, running_stack

FIRED = tuple(f"{PREFIX}{name}" if name in SLOW else name for name in SHIPPED_ALERTS)


@dataclass(frozen=True)
class Run:
    """The stack after the scenario, and what came of it."""

    stack: Stack
    told: Told
    sources: Sources


@pytest.fixture(scope="module")
def run(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Minutes of real workers, once for all tests here."""
    with running_stack(collector_binary(), tmp_path_factory.mktemp("production")) as stack:
        told = played(stack, redis_url, tmp_path_factory.mktemp("workers"), set(FIRED))
        sources = Sources(stack.prometheus, stack.loki, told.began_s, told.ended_s)
        yield Run(stack, told, sources)


@pytest.mark.parametrize("query", list(panel_queries()), ids=str)
def test_every_query_of_every_panel_returns_data(
    run: Run, query: PanelQuery, report: Report
) -> None:
    answer = query.answer(run.sources)
    points = sum(len(each.values) for each in answer)
    report.answers[query.dashboard, query.panel, query.ref] = answer
    report.line(f"{points:>6} points  {query}: {' '.join(query.expression.split())}")
    assert points > 0


@pytest.mark.parametrize("name", FIRED)
def test_every_alert_reaches_alertmanager(run: Run, name: str, report: Report) -> None:
    assert name in run.told.alerts
    alert = run.told.alerts[name]
    report.line(f"{run.told.fired_after_s[name]:>4.0f} s  {name}: {alert['annotations']}")
    annotations = alert["annotations"]
    assert isinstance(annotations, dict)
    assert annotations["runbook_url"].endswith(f"/{name.removeprefix(PREFIX)}.md")
    assert "<no value>" not in str(annotations)
    assert "error" not in str(annotations["description"]).lower()


def test_no_series_has_a_pid_or_the_id_of_a_task(run: Run) -> None:
    matching = '{__name__=~"celery_.*|target_info"}'
    labels = {label for sample in run.stack.prometheus.query(matching) for label in sample.labels}
    assert labels
    assert not {label for label in labels if "pid" in label or label.endswith("task_id")}


def test_only_attributes_of_the_contract_are_labels(run: Run) -> None:
    allowed = {name.replace(".", "_") for metric in c.METRICS for name in metric.attributes}
    samples = run.stack.prometheus.query('{__name__=~"celery_.*"}')
    labels = {label for sample in samples for label in sample.labels}
    assert labels - {"__name__", "job", "instance", "le"} <= allowed


def test_the_collector_of_a_node_says_where_its_workers_are(run: Run) -> None:
    selector = 'target_info{instance="leaky@test", k8s_cluster_name="tests"}'
    assert run.stack.prometheus.query(selector, run.told.ended_s)


def test_the_memory_of_the_host_is_there_too(run: Run) -> None:
    assert run.stack.prometheus.query('system_memory_usage_bytes{job="host"}', run.told.ended_s)


def test_a_point_of_a_heatmap_leads_to_the_trace_of_a_run(run: Run) -> None:
    series = 'celery_task_memory_rss_peak_bytes_bucket{instance="leaky@test"}'
    exemplars = run.stack.prometheus.exemplars(series)
    assert exemplars
    assert {each["trace_id"] for each in exemplars} & _traces(run.stack.traces)


def test_a_lost_process_is_told_to_loki_with_the_task_it_was_running(run: Run) -> None:
    selector = '{service_instance_id="leaky@test"} | event_name="celery.worker.process_lost"'
    window = {"start": int(run.told.began_s * 1e9), "end": int(run.told.ended_s * 1e9)}
    (stream, *_) = run.stack.loki.ask("query_range", {"query": selector, **window})
    labels = stream["stream"]
    assert isinstance(labels, dict)
    assert labels["celery_task_name"] == "tests.worker.app.die"
    assert labels["celery_worker_exit_reason"] == "killed"


def _traces(received: Received) -> set[str]:
    return {span.trace_id for span in list(received.spans)}
