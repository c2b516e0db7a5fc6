"""The frames that a reporter took from the rings and no endpoint has acknowledged yet.

The journal is memory that the main process keeps open, so it outlives the reporter. If a reporter
is killed, its successor applies once more the records that no acknowledged export contains. So a
record must either be exported as metrics or be harmless when it is applied twice: parts of captures
are left out, and exits that were acknowledged are not classified again.

A frame stays in its ring until it is in the journal. The header, which takes frames in, says in the
same step how far their ring was read, and a successor goes on there: none is lost, and none taken
twice. The header has two copies, one of which is always complete. A table has the places of the
other rings. Positions count all bytes ever taken.

At most 4 MiB wait. After a longer outage a successor gets only the last 4 MiB. Telemetry is
exported twice if the reporter is killed between an export's success and its acknowledgement here.
Exits that were classified since the last export may be missing in the counts: their frames were
acknowledged before.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from threading import Lock
from zlib import crc32

from otel_celery_memory.ipc.ring import CHUNK_BYTES, RINGS, Place
from otel_celery_memory.ipc.shared_memory import SharedFile, keep_size, mapped, new_memory
from otel_celery_memory.probes.descriptors import JOURNAL

JOURNAL_BYTES = 4 << 20
"""Enough for about 16,000 ends of tasks between two acknowledged exports. If more come, the oldest
are dropped from the journal: they are lost if the reporter is killed before the next export."""
TAKEN_BYTES_MAX = CHUNK_BYTES
_NUMBERS = 5 + len(Place._fields)
_HEADER = struct.Struct(f"<{_NUMBERS}Q")
_CHECKED = struct.Struct(f"<{_NUMBERS}QI")
_PLACE = struct.Struct(f"<{len(Place._fields)}Q")
_PLACES_AT = 2 * _CHECKED.size
_DATA_AT = (_PLACES_AT + RINGS * _PLACE.size + 4095) // 4096 * 4096

_BYTES = _DATA_AT + JOURNAL_BYTES


def create_journal(place: Callable[[int], int] = int) -> int:
    """The descriptor of memory for a journal; raises `OSError` if there is not enough memory."""
    fd = place(new_memory("otel_celery_memory_journal"))
    try:
        os.ftruncate(fd, _BYTES)
        keep_size(fd)
    except OSError:
        os.close(fd)
        raise
    return fd


class JournalMemory:
    """A journal's memory, as the main process holds it for its reporters."""

    def __init__(self, place: Callable[[int], int] = int) -> None:
        """Raises `OSError` if there is not enough memory."""
        fd = create_journal(place)
        self._file = SharedFile(fd, JOURNAL)

    @property
    def fd(self) -> int:
        """Its descriptor; raises `OSError` if tasks have taken it away."""
        return self._file.fd

    def close(self) -> None:
        """Closes the descriptors."""
        self._file.close()


class Journal:
    """The mapped memory. The reporter's loop adds frames; the exporting thread acknowledges."""

    def __init__(self, fd: int) -> None:
        self._map = mapped(fd, _BYTES)
        self._lock = Lock()
        (self._number, self._base, self._acknowledged, self.read_to, *last) = self._found()
        self._ring, *place = last
        self._place = Place(*place)
        self._note_place()

    def place(self, ring: int) -> Place:
        """How far this reporter or its predecessor has read a ring."""
        return Place(*_PLACE.unpack_from(self._map, _PLACES_AT + ring * _PLACE.size))

    def unacknowledged(self) -> bytes:
        """The frames that this reporter or its predecessor took and no endpoint acknowledged."""
        return self._map[self._offset(self._acknowledged) : self._offset(self.read_to)]

    def take(self, frames: bytes, ring: int, place: Place) -> None:
        """Adds frames, at most `TAKEN_BYTES_MAX`: their ring was read up to this place."""
        with self._lock:
            self._make_room()
            at = self._offset(self.read_to)
            self._map[at : at + len(frames)] = frames
            self.read_to += len(frames)
            self._ring, self._place = ring, place
            self._write()
            self._note_place()

    def acknowledge(self, position: int) -> None:
        """An endpoint has acknowledged all telemetry of the frames up to `position`."""
        with self._lock:
            if self._acknowledged < position <= self.read_to:
                self._acknowledged = position
                self._write()

    def close(self) -> None:
        """Unmaps the memory."""
        self._map.close()

    def _make_room(self) -> None:
        left = self.read_to - self._acknowledged
        if left == 0 and self._base != self.read_to:
            self._base = self.read_to
            self._write()
        if self._offset(self.read_to) + TAKEN_BYTES_MAX <= len(self._map):
            return
        if left <= self._acknowledged - self._base:
            # Source and destination do not overlap: a reporter killed meanwhile leaves the source
            # complete.
            self._map.move(_DATA_AT, self._offset(self._acknowledged), left)
            self._base = self._acknowledged
        else:
            self._base = self._acknowledged = self.read_to
        self._write()

    def _offset(self, position: int) -> int:
        return _DATA_AT + position - self._base

    def _note_place(self) -> None:
        _PLACE.pack_into(self._map, _PLACES_AT + self._ring * _PLACE.size, *self._place)

    def _write(self) -> None:
        self._number += 1
        positions = (self._base, self._acknowledged, self.read_to)
        header = (self._number, *positions, self._ring, *self._place)
        checksum = crc32(_HEADER.pack(*header))
        _CHECKED.pack_into(self._map, self._number % 2 * _CHECKED.size, *header, checksum)

    def _found(self) -> tuple[int, ...]:
        found: list[tuple[int, ...]] = [(0,) * _NUMBERS]
        for at in (0, _CHECKED.size):
            *header, checksum = _CHECKED.unpack_from(self._map, at)
            _, base, acknowledged, read_to, ring, *_ = header
            whole = crc32(_HEADER.pack(*header)) == checksum and ring < RINGS
            if whole and base <= acknowledged <= read_to <= base + JOURNAL_BYTES:
                found.append(tuple(header))
        return max(found)
