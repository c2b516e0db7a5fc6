"""Tasks end the process that they run in, to give memory back: on purpose, with codes of theirs."""

from __future__ import annotations

import os
import sys

from tests.truth.app import app
from tests.truth.case import Case
from tests.truth.findings import Losses, Lost

CASES = (
    Case(
        "tasks that end their process",
        None,
        {"finish": 0.6, "stop": 0.4},
        shows=(Losses((Lost("finish", "exited", code=0), Lost("stop", "exited", code=3))),),
    ),
)


@app.task
def finish(number: int) -> int:
    """Ends its process in each fifth run, as Python does."""
    if number % 5 == 4:
        sys.exit(0)
    return number


@app.task
def stop(number: int) -> int:
    """Ends its process in each fifth run, at once."""
    if number % 5 == 4:
        os._exit(3)
    return number
