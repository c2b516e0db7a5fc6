"""The queries of the committed dashboards, variables filled in, as Grafana would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stack.prometheus import Prometheus
from tests.stack.victorialogs import VictoriaLogs

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

    def answer(self, sources: Sources) -> list[Answer]:
        """What the real data says: series with times and values, or events with times and text."""
        text = self.filled(sources.end_s - sources.begin_s)
        if self.source == "prometheus":
            if self.instant:
                found = sources.prometheus.query(text, sources.end_s)
                return [Answer(each.labels, ((sources.end_s, str(each.value)),)) for each in found]
            series = sources.prometheus.query_range(text, sources.begin_s, sources.end_s, STEP_S)
            return [
                Answer(each.labels, tuple((at, str(value)) for at, value in each.points))
                for each in series
            ]
        if self.instant:
            return [_of_loki(each) for each in sources.loki.query(text, sources.end_s)]
        streams = sources.loki.query_range(text, sources.begin_s, sources.end_s, STEP_S)
        return [_of_loki(each) for each in streams]


@dataclass(frozen=True)
class Answer:
    """One series or stream: labels, and values or lines at times in seconds."""

    labels: Mapping[str, str]
    values: tuple[tuple[float, str], ...]


def _of_loki(result: Mapping[str, Any]) -> Answer:
    if "stream" in result:
        lines = tuple((int(at_ns) / 1e9, line) for at_ns, line in result["values"])
        return Answer(result["stream"], lines)
    values = result.get("values") or [result["value"]]
    return Answer(result["metric"], tuple((float(at), value) for at, value in values))


@dataclass(frozen=True)
class Sources:
    """What answers queries, and the time that is looked at."""

    prometheus: Prometheus
    victorialogs: VictoriaLogs
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
