"""Reads a stream of frames as the reporter does."""

from __future__ import annotations

from otel_celery_memory.ipc.codec import read_frames
from otel_celery_memory.ipc.records import Record


def read_all(stream: bytes) -> tuple[list[Record], int]:
    """All records, and how many runs of bytes between the frames were none."""
    found, at, gaps = [], 0, 0
    for begin, end, record in read_frames(stream):
        found.append(record)
        gaps += begin != at
        at = end
    return found, gaps + (at != len(stream))
