"""Each run connects one more receiver to a signal of the application's own."""

from __future__ import annotations

from typing import Any

from celery.utils.dispatch import Signal

from tests.truth.app import app
from tests.truth.case import Case

_saved = Signal(name="saved")
CASES = (Case("signal receivers added", "save", {"save": 12}, holder=("_saved", "receivers")),)


@app.task
def save(number: int) -> None:
    """Means to hear of it once."""
    text = str(number).rjust(4_000)  # the line

    def heard(**_: Any) -> int:
        return len(text)

    _saved.connect(heard, weak=False)
