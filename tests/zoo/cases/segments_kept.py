"""Segments of shared memory are attached and never closed."""

from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory

from tests.truth.app import app
from tests.truth.case import Case

_segments: list[SharedMemory] = []
CASES = (
    Case(
        "shared memory segments",
        "exchange",
        {"exchange": 3},
        kinds=("mapping", "file_descriptors"),
        holder=("_segments",),
    ),
)


@app.task
def exchange(number: int) -> None:
    """Keeps a segment of 128 KiB mapped; its name is gone, so that nothing is left of it later."""
    segment = SharedMemory(create=True, size=128 << 10)  # the line
    segment.unlink()
    if segment.buf is not None:
        segment.buf[:] = bytes([number % 255 + 1]) * segment.size
    _segments.append(segment)
