"""Each run registers a hook for the interpreter's end, with what it would need then."""

from __future__ import annotations

import atexit

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("hooks at exit", "spool", {"spool": 12}),)


def _remove(text: str) -> int:
    return len(text)


@app.task
def spool(number: int) -> None:
    """Means to tidy up at the end; a child of a pool never comes to it."""
    atexit.register(_remove, str(number).rjust(4_000))  # the line
