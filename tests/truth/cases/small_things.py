"""What leaks is smaller than all that a run leaves once: one object a run."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_dicts: list[dict[str, int]] = []
CASES = (Case("one small dict a run", "tag", {"tag": 100}, seconds=150, holder=("_dicts",)),)


@app.task
def tag(number: int) -> None:
    """Keeps a small dict."""
    _dicts.append({"number": number})  # the line
