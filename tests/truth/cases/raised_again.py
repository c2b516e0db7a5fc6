"""An exception in a local variable, raised again: garbage in a cycle that the collector frees."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case
from tests.truth.findings import LeavesGarbage

CASES = (
    Case("cycles through frames", None, {"parse": 12}, shows=(LeavesGarbage("parse", 100_000),)),
)


def _number_of(text: str) -> int:
    failed: ValueError | None = None
    try:
        return int(text[:8])
    except ValueError as error:
        failed = error
    raise failed


@app.task
def parse(number: int) -> bool:
    """Fails, with a document of 200 KB in its frame."""
    document = f"<{number}>".ljust(200_000)
    try:
        _number_of(document)
    except ValueError:
        return False
    return True
