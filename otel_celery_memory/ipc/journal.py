"""The bytes that a reporter read from the pipe and no endpoint has acknowledged yet.

The reporter reads the pipe directly into this memory, which the main process keeps open, so it
outlives the reporter. If a reporter is killed, its successor applies once more the records that no
acknowledged export contains. So a record must either be exported as metrics or be harmless when it
is applied twice: parts of captures are left out, and exits that were acknowledged are not
classified again.

At most 4 MiB wait. After a longer outage a successor gets only the last 4 MiB. Telemetry is
exported twice if the reporter is killed between an export's success and its acknowledgement here.
No measurement is lost, because each read is announced before it happens. Exits that were classified
since the last export may be missing in the counts: their frames were acknowledged before.

A reporter may be killed inside the system call that reads, or before it has noted the result. So
each read is announced with its length, and its destination is filled with bytes that begin no
frame. If a successor finds them overwritten, the read has happened. Positions count all bytes ever
read. The header has two copies, one of which is always complete.
"""

from __future__ import annotations

import mmap
import os
import struct
import termios
from collections.abc import Callable
from fcntl import ioctl
from threading import Lock
from zlib import crc32

from otel_celery_memory.ipc.shared_memory import new_memory

JOURNAL_BYTES = 4 << 20
"""Enough for about 16,000 ends of tasks between two acknowledged exports. If more come, the oldest
are dropped from the journal: they are lost if the reporter is killed before the next export."""
_READ_BYTES = JOURNAL_BYTES // 4
_HEADER = struct.Struct("<QQQQQ")
_CHECKED = struct.Struct("<QQQQQI")
_INT = struct.Struct("i")
_NOT_READ = b"\xff" * 8
_DATA_AT = 4096


def create_journal(place: Callable[[int], int] = int) -> int:
    """The descriptor of memory for a journal; raises `OSError` if there is not enough memory."""
    fd = place(new_memory("otel_celery_memory_journal"))
    try:
        os.ftruncate(fd, _DATA_AT + JOURNAL_BYTES)
    except OSError:
        os.close(fd)
        raise
    return fd


class Journal:
    """The mapped memory. The reporter's loop reads into it; the exporting thread acknowledges."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _DATA_AT + JOURNAL_BYTES)
        self._lock = Lock()
        self._number, self._base, self._acknowledged, self.read_to, announced = self._found()
        if self._was_read(announced):
            self.read_to += announced
        self._announced = 0

    def unacknowledged(self) -> bytes:
        """The bytes that this reporter or its predecessor read and no endpoint acknowledged."""
        return self._map[self._place(self._acknowledged) : self._place(self.read_to)]

    def read(self, fd: int) -> bytes:
        """Reads what the pipe has, empty at its end; raises `BlockingIOError` as `os.read` does."""
        with self._lock:
            self._make_room()
            at = self._place(self.read_to)
            # Nothing else reads from the pipe, so the bytes that are there now are the bytes that
            # will be read. At least one, to notice the end of the pipe.
            self._announce(min(_bytes_in(fd), _READ_BYTES) or 1)
            try:
                with memoryview(self._map) as whole, whole[at : at + self._announced] as room:
                    count = os.readv(fd, [room])
            finally:
                self._announced = 0
            if count:
                self.read_to += count
                self._write()
            return self._map[at : at + count]

    def acknowledge(self, position: int) -> None:
        """An endpoint has acknowledged all telemetry of the bytes up to `position`."""
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
        if self._place(self.read_to) + _READ_BYTES <= len(self._map):
            return
        if left <= self._acknowledged - self._base:
            # Source and destination do not overlap: a reporter killed meanwhile leaves the source
            # complete.
            self._map.move(_DATA_AT, self._place(self._acknowledged), left)
            self._base = self._acknowledged
        else:
            self._base = self._acknowledged = self.read_to
        self._write()

    def _place(self, position: int) -> int:
        return _DATA_AT + position - self._base

    def _announce(self, count: int) -> None:
        at, filling = self._place(self.read_to), _NOT_READ[:count]
        self._map[at : at + len(filling)] = filling
        self._announced = count
        self._write()

    def _was_read(self, announced: int) -> bool:
        at, filling = self._place(self.read_to), _NOT_READ[:announced]
        return self._map[at : at + len(filling)] != filling

    def _write(self) -> None:
        self._number += 1
        header = (self._number, self._base, self._acknowledged, self.read_to, self._announced)
        checksum = crc32(_HEADER.pack(*header))
        _CHECKED.pack_into(self._map, self._number % 2 * _CHECKED.size, *header, checksum)

    def _found(self) -> tuple[int, int, int, int, int]:
        found = [(0, 0, 0, 0, 0)]
        for at in (0, _CHECKED.size):
            *header, checksum = _CHECKED.unpack_from(self._map, at)
            number, base, acknowledged, read_to, announced = header
            whole = crc32(_HEADER.pack(*header)) == checksum
            if whole and base <= acknowledged <= read_to <= base + JOURNAL_BYTES - announced:
                found.append((number, base, acknowledged, read_to, announced))
        return max(found)


def _bytes_in(pipe_fd: int) -> int:
    (count,) = _INT.unpack(ioctl(pipe_fd, termios.FIONREAD, bytes(_INT.size)))
    return int(count)
