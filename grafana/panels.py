"""The kinds of panels, each with what every panel must have.

A panel answers one question. Its title asks the question, its description says how to read the
answer, and its empty text says what it means if there is no data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import heatmap, logs, prometheus, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.event_queries import Count, Events
from grafana.ids import PanelId
from grafana.stores import EventStore

PROMETHEUS = common.DataSourceRef(type_val="prometheus", uid="${prometheus_datasource}")


@dataclass(frozen=True)
class Question:
    """A panel's id, title, description, unit of its values, and text if it is empty."""

    id: PanelId
    title: str
    description: str
    unit: str
    empty: str


@dataclass(frozen=True)
class Panel:
    """A panel without a position, and its size: a page has 24 columns."""

    builder: Any
    width: int
    height: int


@dataclass(frozen=True)
class Query:
    """An expression and the legend of its series; with ``exemplars`` points link to traces."""

    expression: str
    legend: str = ""
    exemplars: bool = False


def over_time(
    question: Question,
    queries: Sequence[Query],
    *,
    bars: bool = False,
    stacked: bool = False,
    right: Mapping[str, str] | None = None,
) -> Panel:
    """Lines, or bars, over time; ``right`` maps legends to units of an axis on the right."""
    panel = _graph(bars=bars, stacked=stacked)
    for legend, unit in (right or {}).items():
        panel.override_by_name(
            legend,
            [
                dashboard.DynamicConfigValue("unit", unit),
                dashboard.DynamicConfigValue("custom.axisPlacement", "right"),
            ],
        )
    for ref, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(_prometheus(query, ref))
    return _finished(panel, question, PROMETHEUS, 12, 8)


def distribution(question: Question, query: Query) -> Panel:
    """A histogram's buckets over time; exemplars are dots that link to traces."""
    panel = (
        heatmap.Panel()
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(question.unit))
        .cell_values(heatmap.CellValues().unit("short"))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_model.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .steps(32)
        )
        .exemplars_color("rgba(87, 148, 242, 0.9)")
        .show_legend()
    )
    target = _prometheus(query, "A").format(PromQueryFormat.HEATMAP)
    return _finished(panel.with_target(target), question, PROMETHEUS, 8, 9)


def rows(
    question: Question,
    columns: Mapping[str, tuple[Query, str]],
    *,
    keys: Mapping[str, str],
    width: int = 12,
    links: Mapping[str, Sequence[tuple[str, str]]] | None = None,
) -> Panel:
    """A table: one row for each combination of labels, columns by title with query and unit.

    ``keys`` has the titles of the labels, ``links`` titles and addresses of links by label.
    """
    panel = table.Panel().sort_by(
        [common_builders.TableSortByFieldState().display_name(next(iter(columns))).desc(True)]
    )
    names = dict(keys)
    for ref, (title, (query, unit)) in zip(ascii_uppercase, columns.items(), strict=False):
        panel.with_target(_prometheus(query, ref, now=True).format(PromQueryFormat.TABLE))
        names[f"Value #{ref}"] = title
        panel.override_by_name(title, [dashboard.DynamicConfigValue("unit", unit)])
    for key, addresses in (links or {}).items():
        shown = [{"title": title, "url": url} for title, url in addresses]
        panel.override_by_name(keys[key], [dashboard.DynamicConfigValue("links", shown)])
    panel.with_transformation(_transformation("merge", {}))
    panel.with_transformation(
        _transformation(
            "organize",
            {
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate(names)},
                "renameByName": names,
            },
        )
    )
    return _finished(panel, question, PROMETHEUS, width, 8)


def events(question: Question, store: EventStore, query: Events, *, width: int = 24) -> Panel:
    """Log events, newest first."""
    panel = (
        logs.Panel()
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(common.LogsSortOrder.DESCENDING)
        .with_target(store.target(query))
    )
    return _finished(panel, question, store.source, width, 8)


def counted(question: Question, store: EventStore, query: Count) -> Panel:
    """Numbers of events, as bars."""
    panel = _graph(bars=True, stacked=True).with_target(store.target(query))
    return _finished(panel, question, store.source, 12, 8)


def _graph(*, bars: bool, stacked: bool) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .tooltip(_tooltip())
        .legend(_legend())
        .fill_opacity(80 if bars else 10)
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .show_points(common.VisibilityMode.AUTO)
        .span_nulls(False)
    )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    return panel


def _finished(
    panel: Any, question: Question, source: common.DataSourceRef, width: int, height: int
) -> Panel:
    """Adds what all panels have."""
    finished = (
        panel.id(question.id.number)
        .title(question.title)
        .description(question.description)
        .unit(question.unit)
        .no_value(question.empty)
        .datasource(source)
    )
    return Panel(finished, width, height)


def _prometheus(query: Query, ref: str, *, now: bool = False) -> prometheus.Dataquery:
    made = (
        prometheus.Dataquery()
        .ref_id(ref)
        .datasource(PROMETHEUS)
        .expr(query.expression)
        .legend_format(query.legend)
    )
    if query.exemplars:
        made.exemplar(True)
    return made.instant() if now else made.range()


def _transformation(kind: str, options: Mapping[str, Any]) -> dashboard.DataTransformerConfig:
    return dashboard.DataTransformerConfig(id_val=kind, options=dict(options))


def _legend() -> common_builders.VizLegendOptions:
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )


def _tooltip() -> common_builders.VizTooltipOptions:
    return (
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
