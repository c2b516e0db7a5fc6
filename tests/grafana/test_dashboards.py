"""What holds for every panel, and for the names that queries use."""

from __future__ import annotations

import re
from typing import Any

import pytest

from grafana import alerting, ids, recordings
from grafana.files import dashboards
from grafana.ids import PanelId
from grafana.names import series
from grafana.rules import Alert
from otel_celery_memory import conventions as c

PAGES = dashboards()
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, page in PAGES.items()
    for panel in page["panels"]
]
RULES = [rule for group in (*recordings.GROUPS, *alerting.GROUPS) for rule in group.rules]
PART = re.compile(r"_(bucket|sum|count)$")


def names_in(expression: str) -> set[str]:
    """Series of ours that an expression asks for, histograms without their parts."""
    found = set(re.findall(r"\b(?:celery|cpython)_[a-z_]+(?=[{\[)\s]|$)", expression))
    labels = {name.replace(".", "_") for metric in c.METRICS for name in metric.attributes}
    return {PART.sub("", name) for name in found - labels}


def expressions() -> list[str]:
    asked = [
        target["expr"]
        for page in PAGES.values()
        for panel in page["panels"]
        for target in panel["targets"]
        if target["datasource"]["type"] == "prometheus"
    ]
    return asked + [rule.expression for rule in RULES]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_one_question_and_says_what_an_empty_answer_means(
    panel: dict[str, Any],
) -> None:
    assert panel["title"].endswith("?")
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["noValue"].endswith((".", "?"))


@pytest.mark.parametrize("name", PAGES)
def test_a_dashboard_has_the_variables_and_links_to_the_others(name: str) -> None:
    page = PAGES[name]
    store, _, _ = name.partition("/")
    variables = [each["name"] for each in page["templating"]["list"]]
    assert variables[:4] == ["prometheus_datasource", f"{store}_datasource", "job", "instance"]
    (link,) = page["links"]
    assert (link["type"], link["tags"], link["includeVars"]) == ("dashboards", page["tags"], True)


def test_every_series_in_a_query_is_exported() -> None:
    asked = {name for expression in expressions() for name in names_in(expression)}
    assert asked <= {series(metric) for metric in c.METRICS}


def test_every_exported_metric_is_in_some_query() -> None:
    asked = {name for expression in expressions() for name in names_in(expression)}
    assert {series(metric) for metric in c.METRICS} - asked == set()


def test_every_recorded_series_is_used_or_says_something_of_the_fleet() -> None:
    recorded = {rule.name for rule in RULES if not isinstance(rule, Alert)}
    asked = " ".join(expressions())
    assert {name for name in recorded if name not in asked} == set()


@pytest.mark.parametrize("expression", expressions())
def test_an_aggregation_names_the_labels_that_it_keeps(expression: str) -> None:
    """Which other labels there are depends on the way to Prometheus: `without` would keep them."""
    assert "without" not in expression


@pytest.mark.parametrize("name", PAGES)
def test_each_panel_has_an_id_and_each_id_a_panel(name: str) -> None:
    page = PAGES[name]
    known = {each for each in vars(ids).values() if isinstance(each, PanelId)}
    expected = {each.number for each in known if each.dashboard == page["uid"]}
    assert {panel["id"] for panel in page["panels"]} == expected


def test_each_id_belongs_to_one_panel() -> None:
    known = [each for each in vars(ids).values() if isinstance(each, PanelId)]
    assert len(set(known)) == len(known)


def test_an_alert_names_an_existing_panel() -> None:
    panels = {
        PanelId(page["uid"], each["id"]) for page in PAGES.values() for each in page["panels"]
    }
    assert {rule.panel for rule in alerting.ALERTS} <= panels


def test_a_page_differs_between_stores_only_in_the_queries_for_events() -> None:
    """So that links, alerts and bookmarks work with whichever was imported."""
    for name in ("fleet", "worker", "task"):
        loki, victorialogs = PAGES[f"loki/{name}"], PAGES[f"victorialogs/{name}"]
        assert loki["uid"] == victorialogs["uid"]
        for ours, theirs in zip(loki["panels"], victorialogs["panels"], strict=True):
            if ours["datasource"]["type"] == "prometheus":
                assert ours == theirs
            else:
                assert _without_its_store(ours) == _without_its_store(theirs)


def _without_its_store(panel: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in panel.items() if name not in ("targets", "datasource")}
