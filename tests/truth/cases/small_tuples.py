"""One tuple a run."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_pairs: list[tuple[int, str]] = []
CASES = (Case("one tuple a run", "pair", {"pair": 100}, seconds=150, holder=("_pairs",)),)


@app.task
def pair(number: int) -> None:
    """Keeps a tuple."""
    _pairs.append((number, "pair"))  # the line
