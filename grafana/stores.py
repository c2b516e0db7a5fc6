"""The stores of events that dashboards are written for: one set of dashboards for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from grafana_foundation_sdk.models import common

from grafana import logql, logsql
from grafana.event_queries import Count, EventQuery
from grafana.names import label

LINES_MAX = 1000


@dataclass(frozen=True)
class EventStore:
    """How a store is asked, by which plugin of Grafana, and how that fills in a page's variables.

    ``everything`` is what a variable stands for while all of its values are chosen: Prometheus and
    the store must both take it.
    """

    name: str
    title: str
    plugin: str
    everything: str
    written: Callable[[EventQuery], str]
    field: Callable[[str], str]
    """What an attribute is called there."""
    lines_type: str
    count_type: str
    """What its data source calls queries of events, and of their number over time."""

    @property
    def variable(self) -> str:
        """The variable that says which of the data sources."""
        return f"{self.name}_datasource"

    @property
    def source(self) -> common.DataSourceRef:
        """What panels and their queries name."""
        return common.DataSourceRef(type_val=self.plugin, uid=f"${{{self.variable}}}")

    def asked(self, query: EventQuery) -> EventTarget:
        """A panel's query."""
        kind, legend = self.lines_type, ""
        if isinstance(query, Count):
            kind, legend = self.count_type, f"{{{{{self.field(query.by)}}}}}"
        return EventTarget(self.source, self.written(query), kind, legend)


@dataclass(frozen=True)
class EventTarget:
    """A query in a panel's JSON: the data sources of both stores have these fields.

    Grafana's builders know Loki's only.
    """

    datasource: common.DataSourceRef
    expression: str
    query_type: str
    legend: str

    def build(self) -> EventTarget:
        """It is its own builder."""
        return self

    def to_json(self) -> dict[str, object]:
        """As Grafana reads it."""
        return {
            "refId": "A",
            "datasource": self.datasource,
            "expr": self.expression,
            "queryType": self.query_type,
            "legendFormat": self.legend,
            "maxLines": LINES_MAX,
        }


LOKI = EventStore(
    "loki",
    "Loki",
    "loki",
    # `.*` alone selects no stream in Loki's eyes.
    ".+",
    logql.written,
    label,
    lines_type="range",
    count_type="range",
)
VICTORIALOGS = EventStore(
    "victorialogs",
    "VictoriaLogs",
    "victoriametrics-logs-datasource",
    # Its plugin makes in(*) of in(.*), and takes `.+` for a value.
    ".*",
    logsql.written,
    str,
    lines_type="instant",
    count_type="statsRange",
)
STORES = (LOKI, VICTORIALOGS)
