"""A set of all ids that were ever seen: small entries, and a table that doubles now and then."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_seen: set[tuple[int, int]] = set()
CASES = (Case("ids seen, in a set", "dedupe", {"dedupe": 20}, holder=("_seen",)),)


@app.task
def dedupe(number: int) -> int:
    """Notes the ids of a batch of ten."""
    _seen.update((number, item) for item in range(10))  # the line
    return len(_seen)
