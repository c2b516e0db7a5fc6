"""Each run adds one more handler to a logger."""

from __future__ import annotations

import io
import logging

from tests.truth.app import app
from tests.truth.case import Case

_log = logging.getLogger("tests.truth.handlers")
_log.propagate = False
CASES = (Case("handlers through a library", "audit", {"audit": 5}, holder=("_log", "handlers")),)


@app.task
def audit(number: int) -> None:
    """Logs to a text of its own."""
    _log.addHandler(logging.StreamHandler(io.StringIO()))  # the line
