"""The supported stores of events; each has a set of dashboards of its own."""

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
    """A store: its plugin in Grafana, its query language, and how variables are filled in.

    ``everything`` is the value of a variable while all values are chosen: Prometheus and the store
    must both accept it.
    """

    name: str
    title: str
    plugin: str
    everything: str
    written: Callable[[EventQuery], str]
    field: Callable[[str], str]
    """The name of an attribute there."""
    lines_type: str
    count_type: str
    """Query types of its data source: for events, and for their number over time."""

    @property
    def variable(self) -> str:
        """The variable of a page that chooses the data source."""
        return f"{self.name}_datasource"

    @property
    def source(self) -> common.DataSourceRef:
        """The data source, as panels and queries refer to it."""
        return common.DataSourceRef(type_val=self.plugin, uid=f"${{{self.variable}}}")

    def target(self, query: EventQuery) -> EventTarget:
        """A panel's query."""
        kind, legend = self.lines_type, ""
        if isinstance(query, Count):
            kind, legend = self.count_type, f"{{{{{self.field(query.by)}}}}}"
        return EventTarget(self.source, self.written(query), kind, legend)


@dataclass(frozen=True)
class EventTarget:
    """A query in a panel's JSON, with the fields of both stores' data sources.

    Grafana's builders support Loki's only.
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
    # Loki refuses a selector with `.*` alone.
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
    # Its plugin turns in(.*) into in(*), and takes `.+` for a value.
    ".*",
    logsql.written,
    str,
    lines_type="instant",
    count_type="statsRange",
)
STORES = (LOKI, VICTORIALOGS)
