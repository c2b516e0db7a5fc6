"""A task is tried again with an error that carries its payload, and errors are kept."""

from __future__ import annotations

from typing import Any

from tests.truth.app import app
from tests.truth.case import Case

_history: list[Exception] = []
CASES = (Case("retries with a payload", "deliver", {"deliver": 6}, holder=("_history",)),)


class _RefusedError(Exception):
    """Not now."""


@app.task(bind=True, max_retries=1)
def deliver(self: Any, number: int) -> int:
    """Is refused at first."""
    if self.request.retries:
        return number
    payload = f"<{number}>".ljust(20_000)  # the line
    _history.append(_RefusedError(payload))
    raise self.retry(exc=_history[-1], countdown=0.1)
