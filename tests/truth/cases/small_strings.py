"""One string of a hundred bytes a run."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_labels: set[str] = set()
CASES = (Case("100 bytes a run", "label", {"label": 100}, seconds=150, holder=("_labels",)),)


@app.task
def label(number: int) -> None:
    """Keeps a string."""
    text = str(number).rjust(100)  # the line
    _labels.add(text)
