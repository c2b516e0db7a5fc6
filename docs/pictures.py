"""Draws the dashboards from the answers to their queries in `make stack`.

``python -m docs.pictures panels.json`` writes fleet.svg, worker.svg and task.svg into
docs/site/images. Layout, titles, units and legends are those of the committed
dashboards for VictoriaLogs, which the stack
runs, and the data is real; the drawing is not Grafana's.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from docs import svg

ROOT = Path(__file__).resolve().parents[1]
COLUMN, ROW, GAP = 50.0, 32.0, 6.0
LEGEND_MAX = 6


@dataclass(frozen=True)
class Series:
    """A series that a query returned, with its name from the legend."""

    name: str
    labels: Mapping[str, str]
    values: Sequence[tuple[float, str]]
    ref: str


@dataclass(frozen=True)
class Frame:
    """Position and size of a panel's content."""

    x: float
    y: float
    width: float
    height: float


def picture(dashboard: Mapping[str, Any], answers: Mapping[tuple[str, str], Any]) -> str:
    """A dashboard as SVG."""
    shapes: list[str] = []
    bottom = 0.0
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        frame = Frame(
            place["x"] * COLUMN + GAP,
            place["y"] * ROW + GAP,
            place["w"] * COLUMN - GAP,
            place["h"] * ROW - GAP,
        )
        bottom = max(bottom, frame.y + frame.height)
        shapes += _panel(panel, frame, list(_series(panel, answers)))
    return svg.page(24 * COLUMN + GAP, bottom + GAP, shapes)


def _series(panel: Mapping[str, Any], answers: Mapping[tuple[str, str], Any]) -> Iterator[Series]:
    for target in panel["targets"]:
        for each in answers.get((panel["title"], target["refId"]), ()):
            name = _named(target.get("legendFormat") or "", each["labels"])
            yield Series(name, each["labels"], each["values"], target["refId"])


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{([\w.]+)}}", lambda found: labels.get(found[1], ""), legend)


def _panel(panel: Mapping[str, Any], frame: Frame, series: Sequence[Series]) -> Iterator[str]:
    yield svg.box(frame.x, frame.y, frame.width, frame.height, svg.PANEL)
    yield svg.text(frame.x + 8, frame.y + 18, panel["title"], 13)
    kind = panel["fieldConfig"]["defaults"].get("custom", {}).get("drawStyle", panel["type"])
    draw = {"table": _table, "logs": _logs, "heatmap": _heatmap, "bars": _bars}.get(kind, _lines)
    inner = Frame(frame.x + 8, frame.y + 28, frame.width - 16, frame.height - 34)
    yield from draw(panel, inner, series)


def _lines(panel: Mapping[str, Any], frame: Frame, series: Sequence[Series]) -> Iterator[str]:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    right = {each["matcher"]["options"] for each in panel["fieldConfig"].get("overrides", ())}
    times = [at for each in series for at, _ in each.values]
    values = [float(v) for each in series if each.name not in right for _, v in each.values]
    if not times or not values:
        return
    plot = _plot(frame, series)
    low, high = min(0.0, *values), max(values) or 1.0
    begin_s, end_s = min(times), max(*times, min(times) + 1)
    yield from _axes(plot, (low, high), end_s - begin_s, unit)
    for number, each in enumerate(_ordered(series)):
        colour = svg.COLOURS[number % len(svg.COLOURS)]
        top = max(float(v) for _, v in each.values) or 1.0 if each.name in right else high
        floor = 0.0 if each.name in right else low
        yield svg.line(
            [
                (
                    plot.x + plot.width * (at - begin_s) / (end_s - begin_s),
                    plot.y + plot.height * (1 - (float(value) - floor) / ((top - floor) or 1)),
                )
                for at, value in each.values
            ],
            colour,
        )
        yield from _legend(frame, plot, number, each, "short" if each.name in right else unit)


def _bars(panel: Mapping[str, Any], frame: Frame, series: Sequence[Series]) -> Iterator[str]:
    """Stacked bars, for a graph of counts."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    times = sorted({at for each in series for at, _ in each.values})
    if not times:
        return
    sums = dict.fromkeys(times, 0.0)
    for each in series:
        for at, value in each.values:
            sums[at] += float(value)
    plot = _plot(frame, series)
    high = max(sums.values()) or 1.0
    step_s = min((after - at for at, after in pairwise(times)), default=1.0)
    whole_s = times[-1] - times[0] + step_s
    yield from _axes(plot, (0.0, high), whole_s, unit)
    below = dict.fromkeys(times, 0.0)
    for number, each in enumerate(_ordered(series)):
        for at, value in each.values:
            x = plot.x + plot.width * (at - times[0]) / whole_s
            width, height = plot.width * step_s / whole_s, plot.height * float(value) / high
            below[at] += height
            y = plot.y + plot.height - below[at]
            yield svg.box(x, y, 0.8 * width, height, svg.COLOURS[number % len(svg.COLOURS)])
        yield from _legend(frame, plot, number, each, unit)


def _plot(frame: Frame, series: Sequence[Series]) -> Frame:
    """Position and size of the graph itself, above its legend."""
    legends = min(len(series), LEGEND_MAX)
    return Frame(frame.x + 62, frame.y, frame.width - 66, frame.height - 15 * legends - 22)


def _axes(plot: Frame, span: tuple[float, float], whole_s: float, unit: str) -> Iterator[str]:
    low, high = span
    for step in range(4):
        value = low + (high - low) * step / 3
        y = plot.y + plot.height * (1 - step / 3)
        yield svg.box(plot.x, y, plot.width, 0.5, "#2c3235")
        yield svg.text(plot.x - 5, y + 4, svg.shown(value, unit), 10, svg.FAINT, end=True)
    yield svg.text(plot.x, plot.y + plot.height + 14, "0", 10, svg.FAINT)
    minutes = f"{whole_s / 60:.0f} min"
    yield svg.text(plot.x + plot.width, plot.y + plot.height + 14, minutes, 10, svg.FAINT, end=True)


def _legend(frame: Frame, plot: Frame, number: int, series: Series, unit: str) -> Iterator[str]:
    if number < LEGEND_MAX:
        y = plot.y + plot.height + 30 + 15 * number
        yield svg.box(frame.x, y - 8, 12, 3, svg.COLOURS[number % len(svg.COLOURS)])
        yield svg.text(frame.x + 18, y - 3, f"{series.name}: {svg.shown(_last(series), unit)}")


def _ordered(series: Sequence[Series]) -> list[Series]:
    return sorted(series, key=lambda each: -_last(each))


def _last(series: Series) -> float:
    return float(series.values[-1][1]) if series.values else 0.0


def _heatmap(panel: Mapping[str, Any], frame: Frame, series: Sequence[Series]) -> Iterator[str]:
    bounds = sorted(series, key=lambda each: float(each.labels["le"].replace("+Inf", "inf")))
    times = sorted({at for each in series for at, _ in each.values})
    if not times:
        return
    columns, rows = len(times), len(bounds)
    width, height = (frame.width - 62) / columns, (frame.height - 16) / rows
    below = dict.fromkeys(times, 0.0)
    cells = []
    for row, each in enumerate(bounds):
        found = dict(each.values)
        for at in times:
            value = float(found.get(at, 0.0))
            cells.append((row, times.index(at), max(value - below[at], 0.0)))
            below[at] = value
        y = frame.y + frame.height - 16 - row * height
        le = each.labels["le"]
        name = "more" if le == "+Inf" else svg.shown(float(le), "bytes")
        yield svg.text(frame.x + 56, y, name, 10, svg.FAINT, end=True)
    most = max(count for *_, count in cells) or 1.0
    for row, column, count in cells:
        if count:
            x = frame.x + 62 + column * width
            y = frame.y + frame.height - 16 - (row + 1) * height
            yield svg.box(x, y, width - 0.5, height - 0.5, "#ff7f0e", 0.15 + 0.85 * count / most)


def _table(panel: Mapping[str, Any], frame: Frame, series: Sequence[Series]) -> Iterator[str]:
    names: dict[str, str] = panel["transformations"][-1]["options"]["renameByName"]
    columns = [name for name in names if name.startswith("Value #")]
    keys = [name for name in names if name not in columns]
    units = {
        each["matcher"]["options"]: each["properties"][0]["value"]
        for each in panel["fieldConfig"]["overrides"]
    }
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for each in series:
        row = rows.setdefault(tuple(each.labels.get(key, "") for key in keys), {})
        row[f"Value #{each.ref}"] = _last(each)
    places = [frame.x + frame.width - 95.0 * (len(columns) - n - 1) for n in range(len(columns))]
    wide = (frame.width - 95.0 * len(columns)) / len(keys)
    for place, key in enumerate(keys):
        yield svg.text(frame.x + wide * place, frame.y + 14, names[key], 11, svg.FAINT)
    for column, x in zip(columns, places, strict=True):
        yield svg.text(x, frame.y + 14, names[column], 11, svg.FAINT, end=True)
    ordered = sorted(rows.items(), key=lambda row: -row[1].get(columns[0], 0.0))
    for number, (labels, values) in enumerate(ordered[: int(frame.height / 19) - 1]):
        y = frame.y + 33 + 19 * number
        for place, text in enumerate(labels):
            yield svg.text(frame.x + wide * place, y, text[-52:])
        for column, x in zip(columns, places, strict=True):
            value = svg.shown(values.get(column, 0.0), units[names[column]])
            yield svg.text(x, y, value, end=True)


def _logs(panel: Mapping[str, Any], frame: Frame, series: Sequence[Series]) -> Iterator[str]:
    lines = sorted(((at, words) for each in series for at, words in each.values), reverse=True)
    for number, (_, words) in enumerate(lines[: int(frame.height / 19)]):
        y = frame.y + 14 + 19 * number
        yield svg.box(frame.x, y - 10, 3, 14, "#E24D42")
        yield svg.text(frame.x + 9, y, words[: int(frame.width / 6)])


def main() -> None:
    """Draws all dashboards."""
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    saved = json.loads(text.replace(f"{ROOT}/", ""))
    for path in sorted((ROOT / "grafana" / "dashboards" / "victorialogs").glob("*.json")):
        answers = {
            (each["panel"], each["ref"]): each["answer"]
            for each in saved
            if each["dashboard"] == path.stem
        }
        made = picture(json.loads(path.read_text(encoding="utf-8")), answers)
        (ROOT / "docs" / "site" / "images" / f"{path.stem}.svg").write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
