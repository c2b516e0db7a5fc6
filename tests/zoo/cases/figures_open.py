"""Figures are drawn and never closed: a registry of the library keeps them, in cycles."""

from __future__ import annotations

from typing import ClassVar

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("figures never closed", "plot", {"plot": 4}, holder=("figures",)),)


class _Figures:
    """As a plotting library's register of what is open."""

    figures: ClassVar[dict[int, _Figure]] = {}


class _Figure:
    def __init__(self, number: int) -> None:
        self.canvas = _Canvas(self)
        _Figures.figures[number] = self


class _Canvas:
    def __init__(self, figure: _Figure) -> None:
        self.figure = figure
        self.pixels = bytearray(40_000)  # the line


@app.task
def plot(number: int) -> int:
    """Draws."""
    return len(_Figure(number).canvas.pixels)
