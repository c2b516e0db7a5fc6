"""A warning with another text in each run: the interpreter remembers each of them."""

from __future__ import annotations

import warnings

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("warnings remembered", "migrate", {"migrate": 20}, holder=("__warningregistry__",)),)


@app.task
def migrate(number: int) -> None:
    """Warns of each row."""
    warnings.warn(f"row {number} is of the old kind".ljust(500), stacklevel=1)  # the line
