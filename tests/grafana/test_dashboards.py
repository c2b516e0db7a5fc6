"""What holds for every panel, and for the names that queries use."""

from __future__ import annotations

import re
from typing import Any

import pytest

from grafana import alerting, recordings
from grafana.files import dashboards
from grafana.names import series
from grafana.rules import Alert
from otel_celery_memory import conventions as c

PAGES = dashboards()
PANELS = [
    pytest.param(page, panel, id=f"{name}: {panel['title']}")
    for name, page in PAGES.items()
    for panel in page["panels"]
]
RULES = [rule for group in (*recordings.GROUPS, *alerting.GROUPS) for rule in group.rules]
PART = re.compile(r"_(bucket|sum|count)$")


def names_in(expression: str) -> set[str]:
    """Series of ours that an expression asks for, histograms without their parts."""
    found = set(re.findall(r"\bcelery_[a-z_]+(?=[{\[)\s]|$)", expression))
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


@pytest.mark.parametrize(("page", "panel"), PANELS)
def test_a_panel_asks_one_question_and_says_what_an_empty_answer_means(
    page: dict[str, Any], panel: dict[str, Any]
) -> None:
    assert panel["title"].endswith("?")
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["noValue"].endswith((".", "?"))


@pytest.mark.parametrize("name", PAGES)
def test_panels_lie_side_by_side_within_a_laptops_width(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PAGES[name]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    assert (0, 0) in taken


@pytest.mark.parametrize("name", PAGES)
def test_a_dashboard_has_the_variables_and_links_to_the_others(name: str) -> None:
    page = PAGES[name]
    variables = [each["name"] for each in page["templating"]["list"]]
    assert variables[:4] == ["prometheus_datasource", "loki_datasource", "job", "instance"]
    (link,) = page["links"]
    assert (link["type"], link["tags"], link["includeVars"]) == ("dashboards", page["tags"], True)


def test_every_series_that_is_asked_for_is_one_that_is_sent() -> None:
    asked = {name for expression in expressions() for name in names_in(expression)}
    assert asked <= {series(metric) for metric in c.METRICS}


def test_every_metric_that_is_sent_is_asked_for_somewhere() -> None:
    asked = {name for expression in expressions() for name in names_in(expression)}
    assert {series(metric) for metric in c.METRICS} - asked == set()


def test_every_recorded_series_is_used_or_says_something_of_the_fleet() -> None:
    recorded = {rule.name for rule in RULES if not isinstance(rule, Alert)}
    asked = " ".join(expressions())
    assert {name for name in recorded if name not in asked} == set()


@pytest.mark.parametrize("expression", expressions())
def test_an_aggregation_says_what_it_keeps(expression: str) -> None:
    """Which other labels there are depends on the way to Prometheus: `without` would keep them."""
    assert "without" not in expression


def test_an_alert_names_a_panel_that_is_there() -> None:
    panels = {(page["uid"], panel["title"]) for page in PAGES.values() for panel in page["panels"]}
    assert {(rule.dashboard, rule.panel) for rule in alerting.ALERTS} <= panels
