"""Sizes of every order, all freed: large runs now and then are no growth."""

from __future__ import annotations

import random

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("sizes with heavy tails", None, {"crawl": 12, "walk": 12}),)


@app.task
def crawl(number: int) -> int:
    """Takes up to some megabytes in small pieces, and frees them."""
    pieces = min(int(random.Random(number).paretovariate(0.8) * 50), 20_000)
    return sum(map(len, [str(piece).rjust(200) for piece in range(pieces)]))


@app.task
def walk(number: int) -> int:
    """Makes cycles for the collector."""
    for _ in range(50):
        node: list[object] = [number]
        node.append(node)
    return number
