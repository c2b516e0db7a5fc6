"""The kinds of panel the dashboards are made of, each with what every panel must have.

A panel answers one question: its title asks it, its description says how to read the answer, and
its empty text says what it means that nothing is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import (
    common as common_builders,
)
from grafana_foundation_sdk.builders import (
    heatmap,
    logs,
    loki,
    prometheus,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = common.DataSourceRef(type_val="prometheus", uid="${prometheus_datasource}")
LOKI = common.DataSourceRef(type_val="loki", uid="${loki_datasource}")


@dataclass(frozen=True)
class Question:
    """What a panel asks, how to read it, the unit of its values and what an empty one means."""

    title: str
    description: str
    unit: str
    empty: str


@dataclass(frozen=True)
class Query:
    """An expression and the legend of its series; ``exemplars`` where points lead to traces."""

    expression: str
    legend: str = ""
    exemplars: bool = False
    instant: bool = False


def over_time(
    question: Question,
    queries: Sequence[Query],
    *,
    width: int = 12,
    bars: bool = False,
    stacked: bool = False,
    from_loki: bool = False,
    right: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Lines, or bars, over time; ``right`` maps legends to units of an axis on the right."""
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
    for legend, unit in (right or {}).items():
        panel.override_by_name(
            legend,
            [
                dashboard.DynamicConfigValue("unit", unit),
                dashboard.DynamicConfigValue("custom.axisPlacement", "right"),
            ],
        )
    for index, query in enumerate(queries):
        ref = chr(ord("A") + index)
        panel.with_target(_loki(query, ref) if from_loki else _prometheus(query, ref))
    return _dress(panel, question, LOKI if from_loki else PROMETHEUS, width, 8)


def distribution(question: Question, query: Query, *, width: int = 8) -> heatmap.Panel:
    """A histogram's buckets over time; exemplars are dots on it that lead to traces."""
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
    return _dress(panel, question, PROMETHEUS, width, 9).with_target(target)


def rows(
    question: Question,
    columns: Mapping[str, tuple[Query, str]],
    *,
    key: str,
    key_title: str,
    width: int = 12,
    from_loki: bool = False,
    links: Sequence[tuple[str, str]] = (),
) -> table.Panel:
    """A table: one row for each value of ``key``, columns by title with query and unit."""
    panel = table.Panel().sort_by(
        [common_builders.TableSortByFieldState().display_name(next(iter(columns))).desc(True)]
    )
    names: dict[str, str] = {key: key_title}
    for index, (title, (query, unit)) in enumerate(columns.items()):
        ref = chr(ord("A") + index)
        asked = Query(query.expression, query.legend, instant=True)
        panel.with_target(
            _loki(asked, ref)
            if from_loki
            else _prometheus(asked, ref).format(PromQueryFormat.TABLE)
        )
        names[f"Value #{ref}"] = title
        panel.override_by_name(title, [dashboard.DynamicConfigValue("unit", unit)])
    if links:
        panel.override_by_name(
            key_title,
            [
                dashboard.DynamicConfigValue(
                    "links", [{"title": title, "url": url} for title, url in links]
                )
            ],
        )
    panel.with_transformation(_transformation("merge", {}))
    panel.with_transformation(
        _transformation("organize", {"excludeByName": {"Time": True}, "renameByName": names})
    )
    return _dress(panel, question, LOKI if from_loki else PROMETHEUS, width, 8)


def events(question: Question, query: Query, *, width: int = 24) -> logs.Panel:
    """Log events, newest first."""
    panel = (
        logs.Panel()
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(common.LogsSortOrder.DESCENDING)
    )
    return _dress(panel, question, LOKI, width, 8).with_target(_loki(query, "A"))


def _dress(
    panel: Any, question: Question, source: common.DataSourceRef, width: int, height: int
) -> Any:
    """What all panels have."""
    return (
        panel.title(question.title)
        .description(question.description)
        .unit(question.unit)
        .no_value(question.empty)
        .datasource(source)
        .span(width)
        .height(height)
    )


def _prometheus(query: Query, ref: str) -> prometheus.Dataquery:
    made = (
        prometheus.Dataquery()
        .ref_id(ref)
        .datasource(PROMETHEUS)
        .expr(query.expression)
        .legend_format(query.legend)
    )
    if query.exemplars:
        made.exemplar(True)
    return made.instant() if query.instant else made.range()


def _loki(query: Query, ref: str) -> loki.Dataquery:
    made = (
        loki.Dataquery()
        .ref_id(ref)
        .datasource(LOKI)
        .expr(query.expression)
        .legend_format(query.legend)
    )
    return made.query_type("instant" if query.instant else "range")


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
