"""One buffer that only grows: it is moved whole now and then, and is one object."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

_buffer = bytearray()
CASES = (Case("a buffer that grows", "collect", {"collect": 15}, seconds=240, holder=("_buffer",)),)


@app.task
def collect(number: int) -> None:
    """Adds 3 KB to what was collected."""
    _buffer.extend(str(number).rjust(3_000).encode())  # the line
