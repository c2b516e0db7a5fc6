"""A library builds what is kept: the user's line is the one that called it."""

from __future__ import annotations

import json

from tests.truth.app import app
from tests.truth.case import Case

_documents: list[object] = []
_TEXT = json.dumps([{"name": f"n{n}", "values": list(range(1000, 1010))} for n in range(20)])
CASES = (Case("documents built by a library", "load", {"load": 6}, holder=("_documents",)),)


@app.task
def load(number: int) -> None:
    """Parses, and keeps."""
    _documents.append(json.loads(_TEXT.replace("n1", f"n{number}")))  # the line
