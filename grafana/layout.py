"""Positions of panels: side by side, row after row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

COLUMNS = 24


@dataclass(frozen=True)
class Place:
    """A panel's corner and size, in columns and rows of Grafana's grid."""

    x: int
    y: int
    width: int
    height: int


def places(sizes: Sequence[tuple[int, int]]) -> list[Place]:
    """A position for each width and height, in order; the last panel of a row fills it."""
    rows: list[list[Place]] = []
    for width, height in sizes:
        end = rows[-1][-1].x + rows[-1][-1].width if rows else COLUMNS
        if end + width > COLUMNS:
            below = max((each.y + each.height for each in rows[-1]), default=0) if rows else 0
            rows.append([Place(0, below, width, height)])
        else:
            rows[-1].append(Place(end, rows[-1][0].y, width, height))
    return [each for row in rows for each in [*row[:-1], _to_the_end(row[-1])]]


def _to_the_end(place: Place) -> Place:
    return replace(place, width=COLUMNS - place.x)
