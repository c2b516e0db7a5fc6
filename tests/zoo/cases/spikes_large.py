"""Some runs take 300 MB and give them back."""

from __future__ import annotations

from tests.truth.app import app
from tests.truth.case import Case

CASES = (Case("spikes of 300 MB", None, {"transcode": 0.3, "probe": 10}),)


@app.task
def transcode(number: int) -> int:
    """Touches all that it takes."""
    block = bytearray(300 << 20)
    block[::4096] = bytes([number % 256]) * len(block[::4096])
    return len(block)


@app.task
def probe(number: int) -> int:
    """Runs in the same processes."""
    return sum(len(str(line)) for line in range(number, number + 500))
