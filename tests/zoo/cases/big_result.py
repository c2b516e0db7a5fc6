"""A task returns five megabytes, which stay alive until the next run."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("a big return value", None, {"report": 2, "ping": 10}),)


@app.task(ignore_result=True)
def report(number: int) -> str:
    """Returns a page."""
    return str(number).rjust(5_000_000)


@app.task
def ping(number: int) -> int:
    """Runs after it."""
    return number
