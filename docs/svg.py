"""The shapes in pictures of panels, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

COLOURS = (
    *("#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1"),
    *("#BA43A9", "#705DA0", "#508642", "#CCA300"),
)
INK, FAINT, PAPER, PANEL = "#d8d9da", "#8e8e8e", "#111217", "#181b1f"


def text(
    x: float, y: float, words: str, size: int = 11, colour: str = INK, end: bool = False
) -> str:
    """Words, to the right of a point or ending at it."""
    anchor = ' text-anchor="end"' if end else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{anchor}>'
        f"{escape(words)}</text>"
    )


def box(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1) -> str:
    """A filled rectangle."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colour}" fill-opacity="{opacity:.2f}"/>'
    )


def line(points: Sequence[tuple[float, float]], colour: str) -> str:
    """A line through points; a single one is a dot."""
    if len(points) == 1:
        return f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2" fill="{colour}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def page(width: float, height: float, shapes: Sequence[str]) -> str:
    """A whole picture."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        'font-family="Inter, Helvetica, Arial, sans-serif">'
    )
    return "\n".join((head, box(0, 0, width, height, PAPER), *shapes, "</svg>", ""))


def shown(value: float, unit: str) -> str:
    """A value with its unit, short."""
    if unit in ("bytes", "binBps"):
        prefixes = ["", "Ki", "Mi", "Gi"]
        while abs(value) >= 1000 and len(prefixes) > 1:
            value /= 1024
            prefixes.pop(0)
        return f"{_short(value)} {prefixes[0]}B" + ("/s" if unit == "binBps" else "")
    if unit == "percentunit":
        return f"{value:.1%}"
    return _short(value) + {"s": " s", "ops": "/s", "cps": "/s"}.get(unit, "")


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
