"""Frames of any kind and payload, whether there is such a record or not."""

from __future__ import annotations

from zlib import crc32

from otel_celery_memory.ipc.codec import HEADER, MAGIC, VERSION, read_frames
from otel_celery_memory.ipc.records import Record


def begin_of(kind: int) -> int:
    """What a frame of this kind begins with."""
    return int.from_bytes(MAGIC + bytes((VERSION, kind)), "little")


def decode(kind: int, payload: bytes) -> Record | None:
    """The record of a frame with this kind and payload, and a checksum that is right."""
    checksum = crc32(payload, crc32(bytes((VERSION, kind))))
    frame = HEADER.pack(begin_of(kind), len(payload), checksum) + payload
    # A frame inside of the payload would be another one.
    return next((record for at, _, record in read_frames(frame) if at == 0), None)
