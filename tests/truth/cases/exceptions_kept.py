"""Errors are kept for a report, and each holds its traceback, its frames and what is in them."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_errors: list[Exception] = []
CASES = (Case("exceptions kept", "submit", {"submit": 10}, holder=("_errors",)),)


@app.task
def submit(number: int) -> None:
    """Fails with a document of 4 KB in its frame."""
    document = f"<{number}>".ljust(4_000)  # the line
    try:
        int(document)
    except ValueError as error:
        _errors.append(error)
