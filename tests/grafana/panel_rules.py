"""What every panel of a dashboard must have, as rules that say which panel breaks them.

A rule takes a dashboard as Grafana reads it and yields what is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from grafana import ids
from grafana.ids import PanelId
from tests.grafana.promql_text import grouping, selectors

Page = Mapping[str, Any]
Panel = Mapping[str, Any]
Rule = Callable[[Page], Iterator[str]]

# Which panels may do without a matcher, and why.
_THE_COLLECTOR = "the Collector's job is its own, and the variables name workers"
NO_JOB: Mapping[PanelId, str] = {ids.FLEET_COLLECTOR: _THE_COLLECTOR}
NO_INSTANCE: Mapping[PanelId, str] = {
    ids.FLEET_COLLECTOR: _THE_COLLECTOR,
    ids.FLEET_TASKS: "a task is of a job, whichever worker runs it; so are the recorded series",
}

_RATES = ("rate", "increase", "irate")
_COUNTERS = re.compile(r"_(total|bucket|sum|count)$")
_LEGEND_LABEL = re.compile(r"{{\s*([\w.]+)\s*}}")
_VARIABLE = re.compile(r"\$(?:{)?([a-z]\w*)")


def a_title(page: Page) -> Iterator[str]:
    """Titles are there and differ."""
    titles = Counter(panel.get("title", "") for panel in page["panels"])
    for panel in page["panels"]:
        if not panel.get("title"):
            yield f"panel {panel.get('id')} has no title"
    for title, times in titles.items():
        if title and times > 1:
            yield f"{title}: a title of {times} panels"


def a_description(page: Page) -> Iterator[str]:
    """A panel says how to read it, and what an empty one means."""
    for panel in page["panels"]:
        if not panel.get("description"):
            yield f"{panel['title']}: no description"
        if not panel["fieldConfig"]["defaults"].get("noValue"):
            yield f"{panel['title']}: no text for when it is empty"


def a_unit(page: Page) -> Iterator[str]:
    """Values have a unit; so does each column of a table."""
    for panel in page["panels"]:
        if not panel["fieldConfig"]["defaults"].get("unit"):
            yield f"{panel['title']}: no unit"
        if panel["type"] == "table":
            dressed = {
                override["matcher"]["options"]
                for override in panel["fieldConfig"]["overrides"]
                if any(each["id"] == "unit" for each in override["properties"])
            }
            for title in set(_columns(panel).values()) - dressed:
                yield f"{panel['title']}: no unit of {title}"


def ids_of_its_own(page: Page) -> Iterator[str]:
    """No two panels have an id, no two queries of a panel a refId, and all have one."""
    numbers = Counter(panel.get("id") for panel in page["panels"])
    for number, times in numbers.items():
        if not number or times > 1:
            yield f"id {number} is of {times} panels"
    for panel in page["panels"]:
        refs = Counter(target.get("refId") for target in panel["targets"])
        for ref, times in refs.items():
            if not ref or times > 1:
                yield f"{panel['title']}: refId {ref} is of {times} queries"


def a_legend(page: Page) -> Iterator[str]:
    """A line has a name with the labels that distinguish the lines of one query."""
    for panel in page["panels"]:
        if panel["type"] != "timeseries":
            continue
        legends = Counter(target.get("legendFormat", "") for target in panel["targets"])
        for legend, times in legends.items():
            if not legend or times > 1:
                yield f"{panel['title']}: {legend!r} is the legend of {times} queries"
        for target in panel["targets"]:
            named = set(_LEGEND_LABEL.findall(target.get("legendFormat", "")))
            for unknown in (each for each in named if each not in target["expr"]):
                yield f"{panel['title']}: no query for the legend's {unknown}"
            grouped = grouping(target["expr"]) if _of_prometheus(target) else set()
            if grouped and not named & grouped:
                yield f"{panel['title']}: series by {grouped} with one legend"


def the_job(page: Page) -> Iterator[str]:
    """A query is of the chosen jobs."""
    yield from _matched(page, 'job=~"$job"', NO_JOB)


def the_instance(page: Page) -> Iterator[str]:
    """A query is of the chosen workers, also that of events."""
    yield from _matched(page, 'instance=~"$instance"', NO_INSTANCE)
    for panel, target in _targets(page):
        if not _of_prometheus(target) and "$instance" not in target["expr"]:
            yield f"{panel['title']}: events of all workers"


def rated_counters(page: Page) -> Iterator[str]:
    """A counter is queried by its rate: its value depends on when its process started."""
    for panel, target in _targets(page):
        if _of_prometheus(target):
            for each in selectors(target["expr"]):
                counter = _COUNTERS.search(each.name) and ":" not in each.name
                if counter and each.function not in _RATES:
                    yield f"{panel['title']}: {each.name} without a rate"


def the_interval(page: Page) -> Iterator[str]:
    """A rate uses Grafana's interval for the graph's width."""
    for panel, target in _targets(page):
        if _of_prometheus(target):
            for each in selectors(target["expr"]):
                if each.function in _RATES and each.window != "$__rate_interval":
                    yield f"{panel['title']}: {each.function} of {each.name} over {each.window!r}"


def a_chosen_source(page: Page) -> Iterator[str]:
    """Data sources are variables of the page: other installations do not have our uids."""
    kinds = {
        f"${{{each['name']}}}": each["query"]
        for each in page["templating"]["list"]
        if each["type"] == "datasource"
    }
    for panel in page["panels"]:
        for each in (panel, *panel["targets"]):
            source = each.get("datasource") or {}
            if kinds.get(source.get("uid", "")) != source.get("type", "none"):
                yield f"{panel['title']}: data source {source}"
    for variable in page["templating"]["list"]:
        source = variable.get("datasource")
        if variable["type"] == "query" and (source or {}).get("uid") not in kinds:
            yield f"variable {variable['name']}: data source {source}"


def known_variables(page: Page) -> Iterator[str]:
    """Each variable is used, and each used variable exists."""
    there = {each["name"] for each in page["templating"]["list"]}
    used = set(_VARIABLE.findall(json.dumps([page["panels"], page["templating"]["list"]])))
    for name in there - used:
        yield f"variable {name} is not used"
    for name in used - there:
        yield f"variable {name} is not there"


RULES: tuple[Rule, ...] = (
    a_title,
    a_description,
    a_unit,
    ids_of_its_own,
    a_legend,
    the_job,
    the_instance,
    rated_counters,
    the_interval,
    a_chosen_source,
    known_variables,
)


def _matched(page: Page, matcher: str, exceptions: Mapping[PanelId, str]) -> Iterator[str]:
    for panel, target in _targets(page):
        if _of_prometheus(target) and PanelId(page["uid"], panel["id"]) not in exceptions:
            for each in selectors(target["expr"]):
                if not re.search(rf"[{{,]\s*{re.escape(matcher)}", each.matchers):
                    yield f"{panel['title']}: {each.name} without {matcher}"


def _targets(page: Page) -> Iterator[tuple[Panel, Mapping[str, Any]]]:
    return ((panel, target) for panel in page["panels"] for target in panel["targets"])


def _of_prometheus(target: Mapping[str, Any]) -> bool:
    return bool(target["datasource"]["type"] == "prometheus")


def _columns(panel: Panel) -> dict[str, str]:
    names = panel["transformations"][-1]["options"]["renameByName"]
    return {name: title for name, title in names.items() if name.startswith("Value #")}
