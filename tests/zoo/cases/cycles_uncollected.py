"""Cycles of garbage, in processes whose collector is disabled."""

from __future__ import annotations

import gc
import os

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("cycles, and no collector", "tree", {"tree": 12}, kinds=("garbage",)),)
if "TRUTH_BROKER" in os.environ:
    gc.disable()


class _Node:
    def __init__(self, text: str) -> None:
        self.text = text
        self.parent: _Node = self


@app.task
def tree(number: int) -> int:
    """Leaves ten nodes to the collector."""
    nodes = [_Node(f"{number}/{step}".rjust(400)) for step in range(10)]  # the line
    return len(nodes)
