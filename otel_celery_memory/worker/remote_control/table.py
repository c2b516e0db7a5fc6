"""The reporter's view of its worker as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = 15


def view_text(view: Mapping[str, Any], share_from_s: float = 0.0) -> str:
    """Tracing, processes, tasks, sites and captures; the largest of each.

    What tracing cost is told as a share of task time where that is `share_from_s` or more.
    """
    tracing = view.get("tracing", {})
    spent = _spent_text(tracing, share_from_s)
    head = f"tracing {tracing.get('mode', '?')}: {spent}, {tracing.get('aborted', 0)} runs aborted"
    off = [f"{each['part']} ({each['slot']})" for each in view.get("switched_off", [])]
    rest = f" and {len(off) - _SHOWN} more" if len(off) > _SHOWN else ""
    cut = ", ".join(f"{n:,} {name}" for name, n in view.get("left_out", {}).items())
    parts = [
        head
        + (f"; switched off: {', '.join(off[:_SHOWN])}{rest}" if off else "")
        + (f"; no room for {cut} more" if cut else ""),
        _table(
            ("process", "pid", "RSS", "task"),
            [
                (p["slot"], p["pid"], size_text(p["rss"]), p["task"] or "-")
                for p in view.get("processes", [])
            ],
        ),
        _table(
            ("task", "runs", "retained/run", "traced runs", "traced/run"),
            [
                (
                    t["name"],
                    f"{t['runs']:,}",
                    size_text(t["retained_per_run"]),
                    f"{t['traced_runs']:,}",
                    size_text(t["traced_per_run"]),
                )
                for t in view.get("tasks", [])
            ],
        ),
        _table(
            ("site", "left/run", "a minute", "runs", "of", "task"),
            [
                (
                    s["name"],
                    size_text(s["size"]),
                    size_text(s["rate"]),
                    f"{s['runs']:,}",
                    s["window"],
                    s["task"] or "-",
                )
                for s in view.get("sites", [])
            ],
        ),
        _table(
            ("capture", "state", "kind", "sites", "runs", "file"),
            [
                (
                    c["number"],
                    c["state"],
                    c.get("kind", "-"),
                    c.get("sites", "-"),
                    c.get("runs", "-"),
                    c.get("error") or c.get("file") or "-",
                )
                for c in view.get("captures", [])
            ],
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def _spent_text(tracing: Mapping[str, Any], share_from_s: float) -> str:
    task_s, spent_s = tracing.get("task_seconds", 0.0), tracing.get("spent_seconds", 0.0)
    if not task_s:
        return "nothing measured in ten minutes"
    share = f" ({spent_s / task_s:.2%})" if task_s >= share_from_s else ""
    return f"{spent_s:.2f} s of {task_s:,.1f} s of task time in ten minutes{share}"


def size_text(size_bytes: int | None) -> str:
    """A size for people, with its sign: ``1.5 KiB``; ``-`` where it is not known."""
    if size_bytes is None:
        return "-"
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    shown = [[str(cell) for cell in row] for row in rows[:_SHOWN]]
    widths = [max(len(line[i]) for line in [heads, *shown]) for i in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [list(heads), *shown]
    ]
    rest = len(rows) - len(shown)
    return "\n".join(lines + ([f"... and {rest} more"] if rest else []))
