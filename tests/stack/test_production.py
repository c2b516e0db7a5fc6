"""Real workers, through the Collector of production, into panels and alerts."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from otel_celery_memory import conventions as c
from tests.processes import wait_until
from tests.stack.collector import Event
from tests.stack.collector_build import collector_binary
from tests.stack.panels import PanelQuery, Sources, panel_queries
from tests.stack.report import Report
from tests.stack.rule_names import SHIPPED_ALERTS
from tests.stack.scaled_rules import PREFIX, SLOW
from tests.stack.scenario import Told, played
from tests.stack.servers import Stack, running_stack

# What VictoriaLogs adds to an event, or says otherwise.
OF_THE_STORE = {"_time", "_stream", "_stream_id", "severity_number", "scope.name", "scope.version"}
# No worker is killed as a whole, and where memory has no cgroup the kernel counts no OOM kills. The
# task that takes the last of the address space is over before the reporter sees it: one that stays
# would end the worker. tests/worker/test_pressure.py has pressure with its task.
NOT_IN_THE_SCENARIO = {
    c.PROCESS_LOST: {c.CGROUP_OOM_KILLS, c.EXIT_RECOVERED},
    c.PRESSURE: {c.TASK_NAME, c.TASK_ID, c.TASK_AGE, c.SPAN_RSS_START},
    # tests/worker/test_census.py has one that could not be taken.
    c.CENSUS: {c.CENSUS_PROBLEM},
}
Fields = frozenset[tuple[str, str]]
"""The fields of one event, each with its text."""
_FRACTION = re.compile(r"-?\d+(\.\d+(e[+-]?\d+)?|e[+-]?\d+)")
FIRED = tuple(f"{PREFIX}{name}" if name in SLOW else name for name in SHIPPED_ALERTS)


@dataclass(frozen=True)
class Run:
    """The stack after the scenario, and what came of it."""

    stack: Stack
    told: Told
    sources: Sources

    def of_event(self, name: str, instance: str = "") -> list[dict[str, str]]:
        """The events of this name in VictoriaLogs, of one worker or of all, latest first."""
        worker = f' "service.instance.id":="{instance}"' if instance else ""
        query = f'"event.name":="{name}"{worker} | sort by (_time) desc'
        return self.stack.victorialogs.events(query, self.told.began_s - 60, time.time())


@pytest.fixture(scope="module")
def run(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Minutes of real workers, once for all tests here."""
    with running_stack(collector_binary(), tmp_path_factory.mktemp("production")) as stack:
        told = played(stack, redis_url, tmp_path_factory.mktemp("workers"), set(FIRED))
        sources = Sources(stack.prometheus, stack.victorialogs, told.began_s, told.ended_s)
        yield Run(stack, told, sources)


@pytest.mark.parametrize("query", list(panel_queries()), ids=str)
def test_every_query_of_every_panel_returns_data(
    run: Run, query: PanelQuery, report: Report
) -> None:
    answer = query.answer(run.sources)
    points = sum(len(each.values) for each in answer)
    report.answers[query.dashboard, query.panel, query.ref] = answer
    report.line(query.told(points))
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


def test_the_trace_of_a_heatmaps_point_is_in_jaeger_with_the_numbers_of_the_run(run: Run) -> None:
    series = 'celery_task_memory_rss_peak_bytes_bucket{instance="leaky@test"}'
    (exemplar, *_) = run.stack.prometheus.exemplars(series)
    spans = run.stack.jaeger.trace(exemplar["trace_id"])
    (consumer,) = (span for span in spans if span.span_id == exemplar["span_id"])
    assert consumer.kind == "consumer"
    assert consumer.name.startswith("run/tests.worker.app.")
    assert consumer.service == "shop"
    assert set(consumer.attributes) >= {each.name for each in c.SPAN_ATTRIBUTES}


def test_a_lost_process_leads_to_the_trace_that_its_task_was_sent_in(run: Run) -> None:
    lost = run.of_event(c.PROCESS_LOST.name, "leaky@test")
    assert lost
    assert {each["trace_id"] for each in lost} <= set(run.told.sent_in)
    (span,) = run.stack.jaeger.trace(lost[0]["trace_id"])
    assert (span.service, span.name) == ("web", "place an order")
    assert span.span_id == lost[0]["span_id"]


def test_every_event_is_in_victorialogs_with_every_attribute_that_it_was_sent_with(
    run: Run, report: Report
) -> None:
    def sent() -> Counter[Fields]:
        collectors = (run.stack.collector, run.stack.refusing)
        return Counter(_as_text(event) for each in collectors for event in each.events())

    def kept() -> Counter[Fields]:
        events = run.stack.victorialogs.events("*", run.told.began_s - 60, time.time())
        return Counter(
            frozenset(
                (name, _same_number(text))
                for name, text in event.items()
                if name not in OF_THE_STORE
            )
            for event in events
        )

    # The Collector sends by the second, and the last workers have just ended.
    wait_until("as many are kept as were sent", lambda: kept().total() >= sent().total(), 60)
    names = Counter(dict(event)["event.name"] for event in kept().elements())
    report.line(f"events in VictoriaLogs: {dict(names)}")
    # The first of those that differ, not a comparison of a thousand.
    assert [dict(event) for event in (sent() - kept()).elements()][:1] == []
    assert [dict(event) for event in (kept() - sent()).elements()][:1] == []


@pytest.mark.parametrize("event", c.EVENTS, ids=lambda event: event.name)
def test_the_scenario_shows_every_attribute_of_every_event(run: Run, event: c.Event) -> None:
    shown = {name for kept in run.of_event(event.name) for name in kept}
    assert set(event.attributes) - shown <= NOT_IN_THE_SCENARIO.get(event, set())


def test_a_stream_of_events_is_a_worker(run: Run) -> None:
    streams = {each["_stream"] for each in run.of_event(c.PROCESS_LOST.name, "leaky@test")}
    assert streams == {'{service.instance.id="leaky@test",service.name="shop"}'}


def test_a_lost_process_is_told_with_the_task_it_was_running(run: Run) -> None:
    (lost, *_) = run.of_event(c.PROCESS_LOST.name, "leaky@test")
    assert lost[c.TASK_NAME] == "tests.worker.app.die"
    assert lost[c.EXIT_REASON] == "killed"


def _as_text(event: Event) -> Fields:
    """An event as VictoriaLogs has it: fields by name, all of them text, empty ones left out."""
    fields = {**event.resource, **event.attributes, "_msg": event.body}
    fields |= {"trace_id": event.trace_id, "span_id": event.span_id}
    fields |= {"severity_text": event.severity, "event_name": event.name}
    return frozenset((name, text) for name, value in fields.items() if (text := _text(value)))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return _same_number(str(value))


def _same_number(text: str) -> str:
    """A fraction as Python writes it; the store may choose other digits and exponents."""
    return str(float(text)) if _FRACTION.fullmatch(text) else text
