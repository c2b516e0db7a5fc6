"""A client is made in each run, with a model of its service, and never closed."""

from __future__ import annotations

import json

from tests.truth.app import app
from tests.truth.case import Case

_hooks: list[_Client] = []
_MODEL = json.dumps([{"name": f"operation{n}", "input": {"shape": n}} for n in range(120)])
CASES = (Case("clients made in each run", "archive", {"archive": 5}, holder=("_hooks",)),)


class _Client:
    def __init__(self) -> None:
        self.operations = json.loads(_MODEL)  # the line
        # As libraries do that tell each client of what happens.
        _hooks.append(self)


@app.task
def archive(number: int) -> int:
    """Needs one operation."""
    return len(_Client().operations) + number
