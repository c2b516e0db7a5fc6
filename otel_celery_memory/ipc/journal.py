"""What a reporter has read from the pipe and no endpoint has taken yet: it outlives the reporter.

The pipe is read straight into this memory, which the main process holds. A reporter that is killed
leaves it to its successor, which takes in once more what the last export that was taken did not
tell. Positions count all bytes that were ever read. The header has two copies, of which one is
always whole.

A reporter may be killed in the system call that reads, or before it has noted what that brought. So
each read is announced with its length, and the place it goes to is filled with what no frame begins
with: where that is gone, the bytes have come.
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
"""Some 16,000 ends of tasks between two exports that are taken; where more come, those before them
are given up: they are lost if the reporter is killed before the next one."""
_READ_BYTES = JOURNAL_BYTES // 4
_HEADER = struct.Struct("<QQQQQ")
_CHECKED = struct.Struct("<QQQQQI")
_INT = struct.Struct("i")
_NOT_READ = b"\xff" * 8
_DATA_AT = 4096


def create_journal(place: Callable[[int], int] = int) -> int:
    """The descriptor of memory for a journal; raises `OSError` where there is no room for it."""
    fd = place(new_memory("otel_celery_memory_journal"))
    try:
        os.ftruncate(fd, _DATA_AT + JOURNAL_BYTES)
    except OSError:
        os.close(fd)
        raise
    return fd


class Journal:
    """The memory, mapped; read into by the reporter's loop, released by who sends metrics."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _DATA_AT + JOURNAL_BYTES)
        self._lock = Lock()
        self._number, self._base, self._acknowledged, self.read_to, announced = self._found()
        if self._has_come(announced):
            self.read_to += announced
        self._announced = 0

    def unacknowledged(self) -> bytes:
        """What was read and not taken: by this reporter or by the one before it."""
        return self._map[self._place(self._acknowledged) : self._place(self.read_to)]

    def read(self, fd: int) -> bytes:
        """What can be read now, empty at the end; raises `BlockingIOError` as `os.read` does."""
        with self._lock:
            self._make_room()
            at = self._place(self.read_to)
            # Nothing else reads from the pipe: what is there now is what comes. A byte, to hear
            # of its end.
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
        """An endpoint has what was told of all up to here."""
        with self._lock:
            if self._acknowledged < position <= self.read_to:
                self._acknowledged = position
                self._write()

    def close(self) -> None:
        """Give back the mapping."""
        self._map.close()

    def _make_room(self) -> None:
        left = self.read_to - self._acknowledged
        if left == 0 and self._base != self.read_to:
            self._base = self.read_to
            self._write()
        if self._place(self.read_to) + _READ_BYTES <= len(self._map):
            return
        if left <= self._acknowledged - self._base:
            # Beside where it is: who dies meanwhile leaves it whole.
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

    def _has_come(self, announced: int) -> bool:
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
