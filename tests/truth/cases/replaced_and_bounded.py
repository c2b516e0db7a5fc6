"""One task keeps much but no more with each run, another one a little more each time."""

from __future__ import annotations

import collections

from tests.truth.app import app
from tests.truth.case import Case

_recent: collections.deque[dict[str, str]] = collections.deque(maxlen=100)
_last: dict[str, str] = {}
_journal: list[str] = []
CASES = (
    Case(
        "a slot replaced, a deque bounded, a real leak",
        "post",
        {"visit": 8, "post": 8},
        holder=("_journal",),
        fills=("visit",),
    ),
    Case("a slot replaced, a deque bounded, no leak", None, {"visit": 8}, fills=("visit",)),
)


@app.task
def visit(number: int) -> None:
    """Keeps the last pages, and the last one whole."""
    for step in range(5):
        _recent.append({"page": f"{number}/{step}".rjust(4_000)})
    _last["page"] = str(number).rjust(200_000)


@app.task
def post(number: int) -> None:
    """Keeps a kilobyte for good."""
    _journal.append(str(number).rjust(1_000))  # the line
