"""The dashboards keep the rules of panels, and each rule finds the panel that breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from grafana.files import dashboards
from grafana.ids import PanelId
from tests.grafana import panel_rules as rules
from tests.grafana.promql_text import Selector, grouping, selectors

PAGES = dashboards()
Spoil = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", PAGES)
def test_a_dashboard_keeps_the_rule(name: str, rule: rules.Rule) -> None:
    assert list(rule(PAGES[name])) == []


def first_graph(page: dict[str, Any]) -> dict[str, Any]:
    """The first panel that draws lines."""
    found: dict[str, Any] = next(each for each in page["panels"] if each["type"] == "timeseries")
    return found


def expression(text: str) -> Spoil:
    """The first graph asks something else."""

    def spoil(page: dict[str, Any]) -> None:
        first_graph(page)["targets"][0]["expr"] = text

    return spoil


def of_panel(name: str, value: object) -> Spoil:
    """The first graph has something else."""

    def spoil(page: dict[str, Any]) -> None:
        first_graph(page)[name] = value

    return spoil


def of_target(name: str, value: object) -> Spoil:
    """Its first query has something else."""

    def spoil(page: dict[str, Any]) -> None:
        first_graph(page)["targets"][0][name] = value

    return spoil


def of_defaults(name: str) -> Spoil:
    """The first graph's values have something no more."""

    def spoil(page: dict[str, Any]) -> None:
        del first_graph(page)["fieldConfig"]["defaults"][name]

    return spoil


def a_column_without_unit(page: dict[str, Any]) -> None:
    *_, panel = (each for each in page["panels"] if each["type"] == "table")
    panel["fieldConfig"]["overrides"] = []


def events_of_all(page: dict[str, Any]) -> None:
    (target, *_) = (
        target
        for panel in page["panels"]
        for target in panel["targets"]
        if target["datasource"]["type"] == "loki"
    )
    target["expr"] = '{service_name="shop"}'


def a_variable_more(page: dict[str, Any]) -> None:
    page["templating"]["list"].append({**page["templating"]["list"][-1], "name": "queue"})


def a_source_of_ours(page: dict[str, Any]) -> None:
    page["templating"]["list"][-1]["datasource"]["uid"] = "prometheus"


JOB = 'job=~"$job", instance=~"$instance"'
BROKEN: list[tuple[rules.Rule, Spoil, str]] = [
    (rules.a_title, of_panel("title", ""), "has no title"),
    (rules.a_title, of_panel("title", "Which lines grow, over time?"), "a title of 2 panels"),
    (rules.a_description, of_panel("description", ""), "no description"),
    (rules.a_description, of_defaults("noValue"), "no text for when it is empty"),
    (rules.a_unit, of_defaults("unit"), "no unit"),
    (rules.a_unit, a_column_without_unit, "no unit of Change"),
    (rules.ids_of_its_own, of_panel("id", 2), "id 2 is of 2 panels"),
    (rules.ids_of_its_own, of_panel("id", 0), "id 0 is of 1 panels"),
    (rules.ids_of_its_own, of_target("refId", ""), "refId  is of 1 queries"),
    (rules.a_legend, of_target("legendFormat", ""), "'' is the legend of 1 queries"),
    (rules.a_legend, of_target("legendFormat", "all"), "with one legend"),
    (rules.a_legend, of_target("legendFormat", "{{queue}}"), "no query for the legend's queue"),
    (rules.the_job, expression('sum by (a) (x{instance=~"$instance"})'), "x without job"),
    (rules.the_job, expression('x{exported_job=~"$job"}'), "x without job"),
    (rules.the_job, expression('x{job=~"shop"}'), "x without job"),
    (rules.the_instance, expression('x{job=~"$job"} / y_z'), "y_z without instance"),
    (rules.the_instance, events_of_all, "events of all workers"),
    (rules.rated_counters, expression(f"sum(x_total{{{JOB}}})"), "x_total without a rate"),
    (rules.rated_counters, expression(f"x_bucket{{{JOB}}}"), "x_bucket without a rate"),
    (rules.the_interval, expression(f"rate(x_total{{{JOB}}}[5m])"), "rate of x_total over '5m'"),
    (
        rules.a_chosen_source,
        of_target("datasource", {"type": "prometheus", "uid": "prometheus"}),
        "data source",
    ),
    (
        rules.a_chosen_source,
        of_panel("datasource", {"type": "prometheus", "uid": "${loki_datasource}"}),
        "data source",
    ),
    (rules.a_chosen_source, of_panel("datasource", None), "data source"),
    (rules.a_chosen_source, a_source_of_ours, "variable task: data source"),
    (rules.known_variables, a_variable_more, "variable queue is not used"),
    (rules.known_variables, expression('x{job="$team"}'), "variable team is not there"),
]


@pytest.mark.parametrize(("rule", "spoil", "said"), BROKEN, ids=[said for _, _, said in BROKEN])
def test_a_rule_names_the_panel_that_breaks_it(rule: rules.Rule, spoil: Spoil, said: str) -> None:
    page = copy.deepcopy(PAGES["loki/task"])
    spoil(page)
    assert said in " ".join(rule(page))


def test_each_rule_is_broken_by_one_of_these() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(rules.RULES)


@pytest.mark.parametrize("exceptions", [rules.NO_JOB, rules.NO_INSTANCE])
def test_an_exception_is_for_a_panel_that_needs_it(exceptions: dict[PanelId, str]) -> None:
    panels = {
        PanelId(page["uid"], each["id"]) for page in PAGES.values() for each in page["panels"]
    }
    assert set(exceptions) <= panels
    matcher = 'job=~"$job"' if exceptions is rules.NO_JOB else 'instance=~"$instance"'
    for page in PAGES.values():
        for panel in page["panels"]:
            if PanelId(page["uid"], panel["id"]) in exceptions:
                asked = [each for t in panel["targets"] for each in selectors(t["expr"])]
                assert any(matcher not in each.matchers for each in asked)


def test_selectors_are_distinguished_from_functions_keywords_and_labels() -> None:
    found = selectors(
        'sum by (job, le) (rate(a_total{x="f(y)}"}[5m])) / on (job) (b or vector(0))\n'
        "and topk(3, c:d:e offset 5m) > 0 * inf"
    )
    assert found == [
        Selector("a_total", '{x="f(y)}"}', "5m", "rate"),
        Selector("b", "", "", ""),
        Selector("c:d:e", "", "", ""),
    ]
    assert grouping('sum by (job, le) (x{y="by (z)"})') == {"job", "le"}
