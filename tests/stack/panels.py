"""The queries of the committed dashboards, variables filled in, as Grafana would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.stack.loki import Loki
from tests.stack.prometheus import Prometheus

DASHBOARDS = Path(__file__).parents[2] / "grafana" / "dashboards"
STEP_S = 15.0
VARIABLES = dict.fromkeys(("job", "instance", "task", "slot"), ".+")


@dataclass(frozen=True)
class PanelQuery:
    """One query of one panel."""

    dashboard: str
    panel: str
    ref: str
    source: str
    expression: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} / {self.ref}"

    def filled(self, range_s: float) -> str:
        """The expression with Grafana's variables replaced."""
        auto = range_s if self.instant else 2 * STEP_S
        values = {
            "$__rate_interval": "60s",
            "$__interval": f"{STEP_S:.0f}s",
            "$__range": f"{range_s:.0f}s",
            "$__auto": f"{auto:.0f}s",
            **{f"${name}": value for name, value in VARIABLES.items()},
        }
        text = self.expression
        for name, value in values.items():
            text = text.replace(name, value)
        assert "$" not in text, text
        return text

    def points(self, sources: Sources) -> int:
        """How many values the query returns on the real data."""
        text = self.filled(sources.end_s - sources.begin_s)
        if self.source == "prometheus":
            if self.instant:
                return len(sources.prometheus.query(text, sources.end_s))
            series = sources.prometheus.query_range(text, sources.begin_s, sources.end_s, STEP_S)
            return sum(len(each.points) for each in series)
        if self.instant:
            return sum(sources.loki.query(text, sources.end_s))
        return sum(sources.loki.query_range(text, sources.begin_s, sources.end_s, STEP_S))


@dataclass(frozen=True)
class Sources:
    """What answers queries, and the time that is looked at."""

    prometheus: Prometheus
    loki: Loki
    begin_s: float
    end_s: float


def panel_queries() -> Iterator[PanelQuery]:
    """All of them, dashboard by dashboard."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        page = json.loads(path.read_text(encoding="utf-8"))
        for panel in page["panels"]:
            for target in panel["targets"]:
                yield _query(path.stem, panel, target)


def _query(dashboard: str, panel: Mapping[str, object], target: Mapping[str, object]) -> PanelQuery:
    source = target["datasource"]
    assert isinstance(source, dict)
    instant = bool(target.get("instant")) or target.get("queryType") == "instant"
    return PanelQuery(
        dashboard,
        str(panel["title"]),
        str(target["refId"]),
        source["type"],
        str(target["expr"]),
        instant,
    )
