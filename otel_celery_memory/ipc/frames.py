"""The bytes of a pipe become records: whole frames are found, what is none is skipped and counted.

The other direction, a record that becomes a frame, is :mod:`otel_celery_memory.ipc.codec`.
"""

from __future__ import annotations

from typing import Protocol
from zlib import crc32

from otel_celery_memory.ipc.codec import HEADER, LAYOUTS, MAGIC, MAX_FRAME_BYTES, VERSION, decode
from otel_celery_memory.ipc.records import Record, TaskStarted


class FrameDecoder:
    """Turns the bytes of a pipe into records; skips and counts what is not a frame.

    ``bad_frames`` counts runs of bytes that were skipped, not the bytes. Never raises, and keeps
    less than one frame between calls.
    """

    def __init__(self) -> None:
        self.bad_frames = 0
        self._rest = b""
        self._in_garbage = False

    def feed(self, data: bytes) -> list[Record]:
        """Records that are complete with `data` appended to what came before."""
        buffer = self._rest + data if self._rest else data
        found: list[Record] = []
        at, end = 0, len(buffer)
        while end - at >= HEADER.size:
            magic, version, kind, length, checksum = HEADER.unpack_from(buffer, at)
            stop = at + HEADER.size + length
            if magic != MAGIC or version != VERSION or stop - at > MAX_FRAME_BYTES:
                at = self._skip(buffer, at)
                continue
            if stop > end:
                break
            payload = buffer[at + HEADER.size : stop]
            layout = LAYOUTS.get(kind)
            intact = layout is not None and crc32(payload, layout.seed) == checksum
            record = decode(kind, payload) if intact else None
            if record is None:
                at = self._skip(buffer, at)
                continue
            self._in_garbage = False
            found.append(record)
            at = stop
        self._rest = buffer[at:]
        return found

    @property
    def incomplete_bytes(self) -> int:
        """How much of what was fed is no whole frame yet."""
        return len(self._rest)

    def finish(self) -> list[Record]:
        """The stream has ended: what is left is no frame's beginning, but may hide whole ones."""
        found: list[Record] = []
        while len(self._rest) >= HEADER.size:
            at = self._skip(self._rest, 0)
            rest, self._rest = self._rest[at:], b""
            found += self.feed(rest)
        if self._rest and not self._in_garbage:
            self.bad_frames += 1
        self._rest = b""
        return found

    def _skip(self, buffer: bytes, at: int) -> int:
        """The next place where a frame may begin; counts a run of garbage once."""
        if not self._in_garbage:
            self._in_garbage = True
            self.bad_frames += 1
        following = buffer.find(MAGIC, at + 1)
        if following >= 0:
            return following
        # The last byte may be the first half of the magic.
        return max(at + 1, len(buffer) - len(MAGIC) + 1)


class Places(Protocol):
    """Where processes say what they run: the control page."""

    def held(self, slot: int) -> bytes:
        """What the process in this slot holds; empty where it holds nothing."""

    def idle(self, slot: int, pid: int) -> bool:
        """Whether this process says that all that it ran has ended."""


def held_by(places: Places, slot: int, pid: int) -> TaskStarted | None:
    """The start that this process holds; another one may have its slot by now."""
    held = held_start(places.held(slot))
    return held if held is not None and held.pid == pid else None


def held_start(held: bytes) -> TaskStarted | None:
    """The start that a process holds in the control page; ``None`` where there is no whole one."""
    found = FrameDecoder().feed(held)
    return next((record for record in found if isinstance(record, TaskStarted)), None)
