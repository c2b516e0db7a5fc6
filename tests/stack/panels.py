"""The queries of the committed dashboards, variables filled in, as Grafana would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tests.stack.prometheus import Prometheus
from tests.stack.victorialogs import VictoriaLogs

DASHBOARDS = Path(__file__).parents[2] / "grafana" / "dashboards"
STEP_S = 15.0
PROMETHEUS, LOKI = "prometheus", "loki"
VICTORIALOGS = "victoriametrics-logs-datasource"
Chosen = Mapping[str, Sequence[str]]
"""The values of variables of which not all are chosen."""


@dataclass(frozen=True)
class PanelQuery:
    """One query of one panel; ``everything`` is what its page makes of variables not chosen."""

    dashboard: str
    panel: str
    ref: str
    source: str
    expression: str
    kind: str
    everything: Mapping[str, str] = field(hash=False)

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} / {self.ref}"

    @property
    def instant(self) -> bool:
        """Whether Prometheus is asked for one moment: the rows of a table."""
        return self.source == PROMETHEUS and self.kind == "instant"

    def told(self, points: int | None) -> str:
        """A line for the report: what was asked, of whom, how much came; None where it was read."""
        came = "only parsed" if points is None else f"{points:>4} points"
        store = {VICTORIALOGS: "victorialogs"}.get(self.source, self.source)
        return f"{came}  {store:<12}  {self}: {' '.join(self.expression.split())}"

    def filled(self, range_s: float, chosen: Chosen | None = None) -> str:
        """The expression with Grafana's variables replaced, as its data source does it."""
        text = self.expression
        for name, value in {
            "$__rate_interval": "60s",
            "$__interval": f"{STEP_S:.0f}s",
            "$__range": f"{range_s:.0f}s",
            "$__auto": f"{2 * STEP_S:.0f}s",
        }.items():
            text = text.replace(name, value)
        for name, everything in self.everything.items():
            values = (chosen or {}).get(name)
            if self.source == VICTORIALOGS:
                value = ",".join(map(json.dumps, values)) if values else everything
            else:
                value = _pattern(values) if values else everything
            text = text.replace(f"${name}", value)
        if self.source == VICTORIALOGS:
            text = text.replace(":in(.*)", ":in(*)")
        assert "$" not in text, text
        return text

    def answer(self, sources: Sources, chosen: Chosen | None = None) -> list[Answer]:
        """What the real data says: series with times and values, or events with times and text."""
        begin_s, end_s = sources.begin_s, sources.end_s
        text = self.filled(end_s - begin_s, chosen)
        if self.source == VICTORIALOGS:
            if self.kind == "statsRange":
                found = sources.victorialogs.stats_range(text, begin_s, end_s, STEP_S)
                return [_of_stats(each) for each in found]
            newest_first = f"{text} | sort by (_time) desc"
            events = sources.victorialogs.events(newest_first, begin_s, end_s)
            return [_of_event(each) for each in events]
        assert self.source == PROMETHEUS, f"nothing here runs queries of {self.source}"
        if self.instant:
            samples = sources.prometheus.query(text, end_s)
            return [Answer(each.labels, ((end_s, str(each.value)),)) for each in samples]
        series = sources.prometheus.query_range(text, begin_s, end_s, STEP_S)
        return [
            Answer(each.labels, tuple((at, str(value)) for at, value in each.points))
            for each in series
        ]


@dataclass(frozen=True)
class Answer:
    """One series or event: labels, and values or lines at times in seconds."""

    labels: Mapping[str, str]
    values: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Sources:
    """What answers queries, and the time that is looked at."""

    prometheus: Prometheus
    victorialogs: VictoriaLogs
    begin_s: float
    end_s: float


def panel_queries() -> Iterator[PanelQuery]:
    """All that are run: those of the dashboards for VictoriaLogs."""
    return _queries_in("victorialogs")


def logql_queries() -> Iterator[PanelQuery]:
    """Those of events in the dashboards for Loki, which are only parsed."""
    return (each for each in _queries_in("loki") if each.source == LOKI)


def _queries_in(store: str) -> Iterator[PanelQuery]:
    for path in sorted((DASHBOARDS / store).glob("*.json")):
        page = json.loads(path.read_text(encoding="utf-8"))
        everything = {
            each["name"]: each["allValue"]
            for each in page["templating"]["list"]
            if each["type"] == "query"
        }
        for panel in page["panels"]:
            for target in panel["targets"]:
                yield _query(path.stem, panel, target, everything)


def _query(
    dashboard: str,
    panel: Mapping[str, Any],
    target: Mapping[str, Any],
    everything: Mapping[str, str],
) -> PanelQuery:
    kind = "instant" if target.get("instant") else target.get("queryType", "range")
    return PanelQuery(
        dashboard,
        panel["title"],
        target["refId"],
        target["datasource"]["type"],
        target["expr"],
        kind,
        everything,
    )


def _pattern(values: Sequence[str]) -> str:
    # Twice, as it stands in a quoted text.
    escaped = [re.escape(each).replace("\\", "\\\\") for each in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _of_stats(result: Mapping[str, Any]) -> Answer:
    values = tuple((float(at), value) for at, value in result["values"])
    return Answer(result["metric"], values)


def _of_event(event: Mapping[str, str]) -> Answer:
    labels = {name: text for name, text in event.items() if name != "_msg"}
    return Answer(labels, ((_seconds(event["_time"]), event["_msg"]),))


def _seconds(time: str) -> float:
    """Of a time in UTC with as many digits of a second as there are."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    at = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return at.timestamp() + float(f"0.{fraction or 0}")
