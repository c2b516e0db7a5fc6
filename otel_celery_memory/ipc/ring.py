"""The rings: memory through which each process of a worker passes frames to the reporter.

A ring has one writing process and one reader. A frame that was written outlives both. Writing is
one call of C, `mmap.write`, which copies the frame and moves the position, so nothing comes between
the two: no other thread of the process, no signal handler, no time limit. It makes no system call.
Measured: 0.2 us, where the write to a pipe took 0.6 us, and 1.0 us with a check that the descriptor
is still ours.

**Blocks.** A ring has two small blocks and two for the rest, each mapped by itself, so that
`mmap.write` refuses what does not fit. A block begins with its start: magic, sequence number,
checksum. The writer fills one block after the other. It opens the next one only if that is free,
which means that its start is zeros; where none is free the frame is dropped. The large blocks are
used only while the reader is behind, so a quiet process touches 64 KiB. There are two of them, as
the one in use may be full at any time: with one, a burst then found no more than the small ones.

**Reading.** The reader takes complete frames and notes in the journal, in the same step, how far it
has come. A block is closed once a newer one is open; when all of a closed block was read, the
reader zeros it, its start last. Until then what was read stays, so that a process that takes over
the slot finds the end. Neither side writes what the other one writes, and no position is shared
that a task could change.

**Faults.** A writer that is killed inside a frame leaves a torn one, and its successor in the slot
begins behind it. The reader skips bytes that are no frame, once a complete frame follows them and
they have not changed between two rounds, or the block is closed; it counts each run of them. It
does the same with whatever a task may have written over the memory.

A fork of a process must not write into its ring: `RingWriter` belongs to the process that made it
(see `worker/record_writer.py`).
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable
from itertools import pairwise
from threading import RLock
from typing import NamedTuple
from zlib import crc32

from otel_celery_memory.ipc.codec import MAX_FRAME_BYTES, read_frames
from otel_celery_memory.ipc.records import Record
from otel_celery_memory.ipc.shared_memory import SharedFile, is_file, keep_size, mapped, new_memory
from otel_celery_memory.probes import descriptors
from otel_celery_memory.probes.descriptors import moved_high

RING_BYTES_MIN, RING_BYTES_MAX = 64 << 10, 1 << 20
RINGS_BYTES = 4 << 20
"""What the rings of a pool share, if that leaves each the least size."""
_SMALL_BYTES = max(RING_BYTES_MIN // 2, mmap.ALLOCATIONGRANULARITY)
_START = struct.Struct("<4sQI")
_SEQUENCE = struct.Struct("<Q")
_START_MAGIC = b"\xceRNG"
_FREE = bytes(_START.size)
_TORN = 0xFF
CHUNK_BYTES = 64 << 10
"""What is read at once, at most."""
_ATTEMPTS = 8


SLOT_RINGS = 511
"""Rings of slots: the main process's, and one for each of the first 510 children."""
GUEST_RINGS = 17
"""Rings for processes without a slot of their own: children beyond those, forks of a task."""
RINGS = SLOT_RINGS + GUEST_RINGS


class Block(NamedTuple):
    """Where a block lies in its ring."""

    begin: int
    end: int


def ring_bytes(children: int) -> int:
    """The size of each ring of a pool with so many children: a power of two."""
    each = RINGS_BYTES // (children + 1)
    return min(max(1 << max(each.bit_length() - 1, 0), 2 * _SMALL_BYTES), RING_BYTES_MAX)


def blocks_of(size_bytes: int) -> tuple[Block, ...]:
    """The blocks of a ring of this size."""
    small_end = 2 * _SMALL_BYTES
    middle = (small_end + size_bytes) // 2
    ends = (0, _SMALL_BYTES, small_end, middle, size_bytes)
    return tuple(Block(*each) for each in pairwise(ends) if each[0] < size_bytes)


def _start(sequence: int) -> bytes:
    return _START.pack(_START_MAGIC, sequence, crc32(_SEQUENCE.pack(sequence)))


def _sequence_in(start: bytes) -> int | None:
    magic, sequence, checksum = _START.unpack(start)
    intact = magic == _START_MAGIC and checksum == crc32(_SEQUENCE.pack(sequence))
    return int(sequence) if intact else None


class RingMemory:
    """All rings of a worker, in one file in memory that its processes map in parts."""

    def __init__(self, fd: int, path: str = "") -> None:
        """``path``: where the file can be opened again. Raises `OSError` if it cannot be used."""
        self.path = path or f"/proc/{os.getpid()}/fd/{fd}"
        found = os.fstat(fd)
        self._identity = (found.st_dev, found.st_ino)
        self.ring_bytes = found.st_size // RINGS
        if self.ring_bytes < 2 * _SMALL_BYTES:
            raise OSError("the file of the rings is too small")
        self._file = SharedFile(fd, descriptors.RINGS)

    @classmethod
    def create(cls, children: int, place: Callable[[int], int] = int) -> RingMemory:
        """Rings for a pool of so many children; raises `OSError` if there is no memory."""
        return cls.in_file(place(new_memory("otel_celery_memory_rings")), children)

    @classmethod
    def in_file(cls, fd: int, children: int, path: str = "") -> RingMemory:
        """Rings in an empty file, none of whose pages is used yet; closes it where that fails."""
        try:
            os.ftruncate(fd, ring_bytes(children) * RINGS)
            keep_size(fd)
            return cls(fd, path)
        except OSError:
            os.close(fd)
            raise

    @property
    def fd(self) -> int:
        """The descriptor; if a task has closed it, it is opened again. Raises `OSError`."""
        try:
            return self._file.fd
        except OSError:
            self._file = SharedFile(moved_high(self.open_again()), descriptors.RINGS)
            return self._file.fd

    def open_again(self) -> int:
        """A new descriptor of the file, by its path; raises `OSError` if that is another file."""
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != self._identity:
            os.close(fd)
            raise OSError("the file of the rings is another one")
        return fd

    def map_blocks(self, index: int) -> list[mmap.mmap]:
        """Maps one ring for writing, each block by itself; raises `OSError`.

        Reserves the pages first: where a file system is full, a write to memory would be fatal.
        """
        fd = self.fd
        at, blocks = index * self.ring_bytes, blocks_of(self.ring_bytes)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, at, self.ring_bytes if is_file(fd) else blocks[1].end)
        try:
            return [mapped(fd, b.end - b.begin, at + b.begin) for b in blocks]
        except ValueError as error:
            raise OSError(str(error)) from None

    def map_ring(self, index: int) -> mmap.mmap:
        """Maps one ring for reading; raises `OSError` or `ValueError`."""
        return mapped(self.fd, self.ring_bytes, index * self.ring_bytes)

    def close(self) -> None:
        """Closes the descriptors that are still ours; what is mapped stays."""
        self._file.close()


class RingWriter:
    """The writing end of one ring, for one process; any of its threads may write."""

    def __init__(self, blocks: list[mmap.mmap]) -> None:
        """Goes on behind what an earlier process wrote into this ring."""
        self._blocks = blocks
        self._lock = RLock()
        self._opening = False
        # Above all that is there, even where a task has written over it.
        self._sequence, self._current = time.time_ns(), -1
        for block in blocks:
            block.seek(0, os.SEEK_END)
        self.append: Callable[[bytes], int] = blocks[0].write
        """Writes a frame in one step; raises `ValueError` where the block has no room for it."""
        newest = self._newest()
        if newest is not None:
            self._sequence, self._current = newest
            block = blocks[self._current]
            block.seek(_end_of_data(block))
            self.append = block.write
        for block in blocks[:2]:
            _touch(block)

    def write(self, frame: bytes) -> bool:
        """Writes a frame; ``False`` if there is no room. Never waits for the reader."""
        for _ in range(_ATTEMPTS):
            append = self.append
            try:
                append(frame)
            except ValueError:
                if not self._open_next(append):
                    return False
            else:
                return True
        return False

    def close(self) -> None:
        """Unmaps the ring."""
        self.append = _closed
        blocks, self._blocks = self._blocks, []
        for block in blocks:
            block.close()

    def _open_next(self, full: Callable[[bytes], int]) -> bool:
        """Opens the block after the one that ``full`` writes into; ``False`` if none is free.

        A time limit may end it between any two lines: then the next call completes what it began.
        """
        with self._lock:
            if self._opening:
                return False  # by a signal handler that runs a task in the midst of this function
            self._opening = True
            try:
                return self.append is not full or self._opened()
            finally:
                self._opening = False

    def _opened(self) -> bool:
        if not self._blocks:
            return False
        newest = self._newest()
        if newest is None or newest[0] <= self._sequence:
            if self._current >= 0:
                # As it is, unless a task has written over it: the reader would miss the block.
                self._blocks[self._current][: _START.size] = _start(self._sequence)
            # Closed first: a thread that still has the `write` of one must not use it any more.
            for block in self._blocks:
                block.seek(0, os.SEEK_END)
            found = self._first_free()
            if found is None:
                return False
            newest = (self._sequence + 1, found)
            self._blocks[found][: _START.size] = _start(newest[0])
        sequence, index = newest
        block = self._blocks[index]
        if block.tell() == len(block):
            block.seek(_START.size)
        self._sequence, self._current = sequence, index
        self.append = block.write
        return True

    def _newest(self) -> tuple[int, int] | None:
        """Sequence number and index of the block that was opened last."""
        starts = [_sequence_in(block[: _START.size]) for block in self._blocks]
        return max(
            ((number, index) for index, number in enumerate(starts) if number is not None),
            default=None,
        )

    def _first_free(self) -> int | None:
        for index, block in enumerate(self._blocks):
            if index != self._current and block[: _START.size] == _FREE:
                return index
        return None


def _closed(_frame: bytes, /) -> int:
    raise ValueError("the ring is closed")


def _touch(block: mmap.mmap) -> bytes:
    """Has its pages mapped now: else they would count as growth of the task that writes there."""
    return block[:: mmap.PAGESIZE]


def _end_of_data(block: mmap.mmap) -> int:
    """Where a process goes on in the block of a predecessor: behind its last frame, torn or not."""
    data = block[:]
    end = _START.size
    for _, stop, _ in read_frames(data, _START.size):
        end = stop
    # A complete frame may end in zeros; a torn one may have any bytes.
    used = len(data.rstrip(b"\0"))
    if used > end and not data[end]:
        block[end] = _TORN  # the reader looks no further than a zero
    return max(end, used)


class Place(NamedTuple):
    """How far a ring was read."""

    sequence: int
    at: int
    """Where the next frame begins, in the block with this sequence number."""
    block_begin: int
    free: int
    """1 where all of the block was read, so that it is to be zeroed."""


class Batch(NamedTuple):
    """What was read at once."""

    records: list[Record]
    frames: bytes
    damaged: int
    """Runs of bytes between the frames that were none."""
    place: Place


class RingReader:
    """The reading end of one ring."""

    def __init__(self, ring: mmap.mmap, before: Place | None = None) -> None:
        """``before``: how far a reporter before has come."""
        self._map = ring
        self._blocks = blocks_of(len(ring))
        self._block: Block | None = None
        self._sequence, self._at, begin, free = before or Place(0, 0, 0, 0)
        self._stuck_at = self._stuck_before = 0
        """Where bytes that are no frame begin, in this round and the one before."""
        self._unreadable: dict[Block, bytes] = {}
        for block in self._blocks:
            if block.begin == begin and block.begin + _START.size <= self._at <= block.end:
                self._block = block
        if free and self._block is not None:
            if _sequence_in(self._start_of(self._block)) == self._sequence:
                self._zero(self._block)  # its reporter was killed before that, or in its midst
            self._block = None

    def begin_round(self) -> int:
        """To be called before each round of reads; what no frame is must be the same in two rounds.

        Mends starts of blocks that were written over. Returns how many blocks had to be given up.
        """
        self._stuck_before, self._stuck_at = self._stuck_at, 0
        given_up, unreadable = 0, {}
        for block in self._blocks:
            start = self._start_of(block)
            if block is self._block:
                if start != _start(self._sequence):
                    self._write_start(block, self._sequence)
            elif start != _FREE and _sequence_in(start) is None:
                unreadable[block] = start
        for block, start in unreadable.items():
            if self._unreadable.get(block) != start:
                continue  # it may be being written
            if self._starts():
                given_up += 1
                self._zero(block)
            else:
                self._write_start(block, self._sequence + 1)  # the only one: it may be in use
        self._unreadable = unreadable
        return given_up

    def read(self, *, last: bool = False) -> Batch | None:
        """The next frames, to be released; ``None`` if there are none.

        ``last``: nobody writes any more, so what is incomplete stays incomplete.
        """
        starts = self._starts()
        if self._block is None:
            if not starts:
                return None
            self._sequence, self._block = min(starts)
            self._at = self._block.begin + _START.size
        block = self._block
        closed = any(other is not block for _, other in starts)
        if not closed and (self._at >= block.end or not (last or self._map[self._at])):
            return None
        return self._take(block, closed=closed, last=last)

    def release(self, place: Place) -> None:
        """What was read up to this place is in the journal: the writer may have the block again."""
        self._at = place.at
        if place.free and self._block is not None:
            self._zero(self._block)
            self._block = None

    def close(self) -> None:
        """Unmaps the ring."""
        self._map.close()

    def _take(self, block: Block, *, closed: bool, last: bool) -> Batch | None:
        begin = self._at
        data = self._map[begin : min(begin + CHUNK_BYTES, block.end)]
        records: list[Record] = []
        whole: list[bytes] = []
        run = taken = damaged = 0
        for at, stop, record in read_frames(data):
            if at != taken:
                if not (closed or last or self._stuck_before == begin + taken):
                    break  # it may be a frame that is being written
                damaged += 1
                whole.append(data[run:taken])
                run = at
            records.append(record)
            taken = stop
        whole.append(data[run:taken])
        if (closed or last) and begin + len(data) >= block.end:
            damaged += bool(data[taken:].strip(b"\0"))
            taken = len(data)
        elif closed and not taken:
            damaged += 1
            taken = len(data) - MAX_FRAME_BYTES + 1  # a frame may begin in the rest
        if not taken and not closed:
            self._stuck_at = begin
            return None
        at = begin + taken
        place = Place(self._sequence, at, block.begin, int(closed and at >= block.end))
        return Batch(records, b"".join(whole), damaged, place)

    def _starts(self) -> list[tuple[int, Block]]:
        """The blocks in use."""
        found = []
        for block in self._blocks:
            if block is self._block:
                found.append((self._sequence, block))
                continue
            start = self._start_of(block)
            sequence = None if start == _FREE else _sequence_in(start)
            if sequence is not None:
                found.append((sequence, block))
        return found

    def _start_of(self, block: Block) -> bytes:
        return self._map[block.begin : block.begin + _START.size]

    def _write_start(self, block: Block, sequence: int) -> None:
        self._map[block.begin : block.begin + _START.size] = _start(sequence)

    def _zero(self, block: Block) -> None:
        """Frees it: its start last, which is what the writer looks at."""
        begin = block.begin + _START.size
        self._map[begin : block.end] = bytes(block.end - begin)
        self._map[block.begin : begin] = _FREE
