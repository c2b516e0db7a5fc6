"""Each run makes a class, and the registry of its base keeps it."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_registry: dict[str, type] = {}
CASES = (Case("a class a run", "model", {"model": 10}, holder=("_registry",)),)


@app.task
def model(number: int) -> None:
    """Makes a class for a table."""
    _registry[str(number)] = type(f"Table{number}", (), {"number": number})  # the line
