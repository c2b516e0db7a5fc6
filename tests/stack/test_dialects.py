"""What is written for Loki and for VictoriaLogs is the same question.

Each query of events that a dashboard asks is put to three: its description, read here; its LogQL,
parsed by Grafana's grammar and read as Loki would; its LogsQL, run by a real VictoriaLogs.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from grafana.event_queries import EVENT_NAME, INSTANCE, Count, EventQuery, Events, OfTask
from grafana.files import PAGES
from grafana.names import label
from grafana.stores import LOKI, VICTORIALOGS, EventStore
from otel_celery_memory import conventions as c
from tests.processes import ComponentError, wait_until
from tests.stack.logql_grammar import SOURCES, Read, parsed, read, refused_licences
from tests.stack.panels import Chosen, PanelQuery, logql_queries
from tests.stack.report import Report
from tests.stack.victorialogs import VictoriaLogs, running_victorialogs

INSTANCES = ("w1@a", "w2@a", "w.1+@a")
TASKS = ("app.feed", "app_feed", "app.feeds", None)
NAMES = (*(event.name for event in c.EVENTS), "celery_worker_process_lost")
SENT: list[dict[str, str]] = [
    {EVENT_NAME: name, INSTANCE: instance, **({c.TASK_NAME: task} if task else {})}
    for name, instance, task in product(NAMES, INSTANCES, TASKS)
]
CHOICES: dict[str, Chosen] = {
    "all": {},
    "one": {"instance": ["w1@a"], "task": ["app.feed"]},
    "some": {"instance": ["w2@a", "w.1+@a"], "task": ["app.feed", "app_feed"]},
    "a task of all workers": {"task": ["app.feeds"]},
    "nobody": {"instance": ["w"], "task": ["feed"]},
}


def asked_by_dashboards() -> list[EventQuery]:
    """The descriptions behind the dashboards' queries of events."""
    asked: list[EventQuery] = []

    def noted(query: EventQuery) -> str:
        asked.append(query)
        return ""

    store = replace(LOKI, written=noted)
    for page in PAGES.values():
        page(store)
    return asked


ASKED = asked_by_dashboards()


@dataclass(frozen=True)
class Kept:
    """A VictoriaLogs that has the events, and when they were sent."""

    store: VictoriaLogs
    begin_s: float
    end_s: float


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with running_victorialogs(tmp_path_factory.mktemp("victorialogs")) as store:
        begin_s = time.time() - 60
        for instance in INSTANCES:
            _send(store, instance, [each for each in SENT if each[INSTANCE] == instance])
        end_s = time.time() + 60
        wait_until("all events", lambda: len(store.events("*", begin_s, end_s)) == len(SENT), 30)
        yield Kept(store, begin_s, end_s)


def _send(store: VictoriaLogs, instance: str, events: list[dict[str, str]]) -> None:
    provider = LoggerProvider(Resource({INSTANCE: instance, "service.name": "shop"}))
    exporter = OTLPLogExporter(f"{store.otlp_endpoint}/v1/logs")
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = provider.get_logger(c.SCOPE)
    for event in events:
        attributes = {name: value for name, value in event.items() if name != INSTANCE}
        logger.emit(
            timestamp=time.time_ns(),
            event_name=event[EVENT_NAME],
            body="it happened",
            attributes=attributes,
        )
    provider.shutdown()


def wanted(query: Events, chosen: Chosen) -> Iterator[dict[str, str]]:
    """The events that a description means."""
    for event in SENT:
        task = event.get(c.TASK_NAME)
        of_task = {
            OfTask.ANY: True,
            OfTask.SOME: task is not None,
            OfTask.CHOSEN: task is not None and task in chosen.get("task", (task,)),
            OfTask.CHOSEN_OR_NONE: task is None or task in chosen.get("task", (task,)),
        }
        if (
            event[EVENT_NAME] in query.names
            and event[INSTANCE] in chosen.get("instance", INSTANCES)
            and of_task[query.of_task]
        ):
            yield event


def counted(query: EventQuery, events: Sequence[Mapping[str, str]]) -> Counter[tuple[str, ...]]:
    """How many events by what the query tells apart: by all that was sent, or by one attribute."""
    by = (query.by,) if isinstance(query, Count) else (EVENT_NAME, INSTANCE, c.TASK_NAME)
    return Counter(tuple(each.get(name, "") for name in by) for each in events)


def of_page(store: EventStore, query: EventQuery) -> PanelQuery:
    """The query as it stands in a dashboard."""
    target = store.target(query)
    everything = dict.fromkeys(("instance", "task"), store.everything)
    return PanelQuery("", "", "A", store.plugin, target.expression, target.query_type, everything)


@pytest.fixture(scope="module")
def trees() -> dict[tuple[EventQuery, str], Read]:
    """What each query says in LogQL, by the name of the choice."""
    cases = list(product(ASKED, CHOICES))
    texts = [of_page(LOKI, query).filled(600, CHOICES[name]) for query, name in cases]
    found = parsed(texts)
    assert [fault for tree in found for fault in tree.faults()] == []
    return {case: read(tree) for case, tree in zip(cases, found, strict=True)}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("query", ASKED, ids=str)
def test_loki_is_asked_for_the_events_that_are_described(
    trees: dict[tuple[EventQuery, str], Read], query: EventQuery, name: str
) -> None:
    said = trees[query, name]
    events = query.events if isinstance(query, Count) else query
    in_loki = [each for each in SENT if said.takes({label(k): v for k, v in each.items()})]
    assert counted(query, in_loki) == counted(query, list(wanted(events, CHOICES[name])))
    counts = isinstance(query, Count)
    assert said.functions == (("sum", "count_over_time") if counts else ())
    assert said.by == ((label(query.by),) if isinstance(query, Count) else ())


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("query", ASKED, ids=str)
def test_victorialogs_answers_with_the_events_that_are_described(
    kept: Kept, query: EventQuery, name: str
) -> None:
    text = of_page(VICTORIALOGS, query).filled(600, CHOICES[name])
    window = (kept.begin_s, kept.end_s)
    if isinstance(query, Count):
        expected = counted(query, list(wanted(query.events, CHOICES[name])))
        series = kept.store.stats_range(text, *window, 15)
        assert {
            (each["metric"][query.by],): sum(int(value) for _, value in each["values"])
            for each in series
        } == expected
    else:
        found = kept.store.events(text, *window)
        assert counted(query, found) == counted(query, list(wanted(query, CHOICES[name])))


def test_each_way_to_look_at_tasks_is_asked_by_a_dashboard() -> None:
    events = [each.events if isinstance(each, Count) else each for each in ASKED]
    assert {each.of_task for each in events} == set(OfTask)


@pytest.mark.parametrize("query", list(logql_queries()), ids=str)
def test_every_query_of_loki_is_one_that_grafanas_grammar_takes(
    query: PanelQuery, report: Report
) -> None:
    (tree,) = parsed([query.filled(600)])
    report.line(query.told(None))
    assert tree.faults() == []


@pytest.mark.parametrize(
    "broken",
    [
        '{service_instance_id=~"w"} | event_name="a" |',
        '{service_instance_id=~"w" | event_name="a"',
        'sum by (celery_task_name) (count_over_time({a="b"} [5m])',
        '"event.name":in("a")',
        "",
    ],
)
def test_the_grammar_refuses_what_is_no_logql(broken: str) -> None:
    (tree,) = parsed([broken])
    assert tree.faults()


def test_victorialogs_refuses_what_is_no_logsql(kept: Kept) -> None:
    with pytest.raises(ComponentError, match="cannot parse"):
        kept.store.events('"event.name":in("a"', kept.begin_s, kept.end_s)


def test_a_package_with_a_licence_that_we_do_not_use_is_named(tmp_path: Path) -> None:
    for name, licence in (("good", "MIT"), ("bad", "AGPL-3.0-only"), ("none", None)):
        content: dict[str, Any] = {"name": name, "version": "1.0.0"}
        place = tmp_path / "node_modules" / name
        place.mkdir(parents=True)
        text = json.dumps({**content, "license": licence} if licence else content)
        (place / "package.json").write_text(text, encoding="utf-8")
    assert refused_licences(tmp_path) == ["bad 1.0.0: AGPL-3.0-only", "none 1.0.0: None"]


def test_the_lock_file_pins_packages_by_what_is_in_them_and_names_no_host() -> None:
    text = (SOURCES / "package-lock.json").read_text(encoding="utf-8")
    packages = {name: each for name, each in json.loads(text)["packages"].items() if name}
    assert len(packages) == 3
    assert all(each["integrity"].startswith("sha512-") for each in packages.values())
    assert "://" not in text
