"""The control page: memory that the worker's processes and the reporter share.

From its beginning the page has:

1. the commands of the main process (`commands.py`);
2. a cell for each slot: the balance of allocation tracing and the windows sent of a capture. A slot
   outlives its processes, and a child may live for one run, so its successor continues from there;
3. the counters of dropped frames, the reporter's heartbeat, which tasks use ``tracemalloc``
   themselves, which rings are in use, by whom, and the task that the reporter suspects of a leak;
4. an area for each slot with the frame of the task in flight. It stays for as long as the task runs
   and, if the process dies in the task, until that has been reported. Its first byte says whether
   a task runs at all;
5. the acknowledged exits.

A slot has one process at a time, and in the main process one thread writes commands. So nothing has
two writers, and processes share no lock. Values are checked before they are used: a task that
writes to this memory by mistake must not make us trace for ever.

Dropped ends of tasks are counted apart from other dropped frames, by the process that drops them:
tasks measured, lost in flight and dropped add up to exactly the tasks that started. A child writes
`IDLE` into its area when all its tasks have ended; if it is killed then, it is lost in no task,
whichever frames were dropped. It does not write that after a task that the process's own signal
ended: that task is reported with its process and also measured, or dropped. What remains
uncovered is a SIGKILL in the few lines between a drop and that write.

The reporter adds a lost process to the acknowledged exits when an endpoint has acknowledged its
event, and any other exit when it is counted. A reporter that is started again is sent all exits
that are not among them.
"""

from __future__ import annotations

import math
import mmap
import struct
import time
from collections.abc import Callable
from hashlib import blake2b
from threading import Lock
from typing import NamedTuple
from zlib import crc32

from otel_celery_memory.ipc.commands import (
    CAPTURE_RUNS_MAX,
    COMMANDS_BYTES,
    TASK_NAME_MAX_BYTES,
    Balance,
    CommandArea,
    Commands,
)
from otel_celery_memory.ipc.ring import GUEST_RINGS, RINGS, SLOT_RINGS
from otel_celery_memory.ipc.shared_memory import SharedFile, mapped, new_memory, page_in
from otel_celery_memory.probes.descriptors import CONTROL_PAGE

_COUNT = struct.Struct("<Q")
_CELL = struct.Struct("<QQ")
_COUNT_MAX = 2**63 - 1
"""The largest count that OTLP can carry."""
ACKNOWLEDGED_EXITS_MAX = 4_096
"""More than the processes that end between two exports: only those are applied once more."""
_EXIT_COUNT = struct.Struct("<Q")
_PIDS = struct.Struct(f"<{ACKNOWLEDGED_EXITS_MAX}q")
_EXITS_BYTES = _EXIT_COUNT.size + _PIDS.size


class DropCounts(NamedTuple):
    """How many frames did not reach the reporter, by kind."""

    task_ends: int
    others: int
    damaged: int
    """Runs of bytes that were no valid frame, of unknown kind."""

    @property
    def total(self) -> int:
        """All kinds together."""
        return min(sum(self), _COUNT_MAX)

    def since(self, before: DropCounts) -> DropCounts:
        """What was dropped since `before`."""
        return DropCounts(*(now - then for now, then in zip(self, before, strict=True)))


NO_DROPS = DropCounts(0, 0, 0)


class DropCounters:
    """Counts dropped frames: a cell for each slot, with one writer, and one for the reporter."""

    def __init__(self, page: mmap.mmap, at: int, slots: int, index: Callable[[int], int]) -> None:
        """``index`` gives the number of a slot's cell."""
        self._page = page
        self._at = at
        self._index = index
        self._damaged_at = at + slots * _CELL.size

    @staticmethod
    def size_bytes(slots: int) -> int:
        """The size of the counters of so many slots."""
        return slots * _CELL.size + _COUNT.size

    def count(self, slot: int, *, task_end: bool = False) -> None:
        """Counts one more frame dropped by the process in this slot (main is -1)."""
        self._add(self._at + self._index(slot) * _CELL.size + (0 if task_end else _COUNT.size), 1)

    def count_damaged(self, frames: int) -> None:
        """Counts frames that the reporter could not decode; its successor finds the count here."""
        self._add(self._damaged_at, frames)

    def counts(self) -> DropCounts:
        """The counts of all processes since the worker started."""
        cells = list(_CELL.iter_unpack(self._page[self._at : self._damaged_at]))
        (damaged,) = _COUNT.unpack_from(self._page, self._damaged_at)
        sums = (sum(ends for ends, _ in cells), sum(others for _, others in cells), damaged)
        return DropCounts(*(min(each, _COUNT_MAX) for each in sums))

    def _add(self, at: int, frames: int) -> None:
        (count,) = _COUNT.unpack_from(self._page, at)
        _COUNT.pack_into(self._page, at, (count + frames) % 2**64)


class AcknowledgedExits:
    """A ring of pids, written by the reporter and read by the main process."""

    def __init__(self, page: mmap.mmap, at: int) -> None:
        self._page = page
        self._at = at
        self._lock = Lock()

    def add(self, pid: int) -> None:
        """Adds an exit; called by the reporter's loop and by the thread that sends events."""
        with self._lock:
            (count,) = _EXIT_COUNT.unpack_from(self._page, self._at)
            place = self._at + _EXIT_COUNT.size + 8 * (count % ACKNOWLEDGED_EXITS_MAX)
            struct.pack_into("<q", self._page, place, pid)
            _EXIT_COUNT.pack_into(self._page, self._at, (count + 1) % 2**64)

    def pids(self) -> frozenset[int]:
        """The pids of the last `ACKNOWLEDGED_EXITS_MAX` exits."""
        found = _PIDS.unpack_from(self._page, self._at + _EXIT_COUNT.size)
        return frozenset(pid for pid in found if pid > 0)


class Suspect:
    """The task of which the reporter suspects a leak, for the main process to order a census of it.

    A checksum shows what is half written.
    """

    def __init__(self, page: mmap.mmap, at: int) -> None:
        self._page = page
        self._at = at

    def write(self, task: str) -> None:
        """Names a task, once more or another; called by the reporter alone."""
        number, _ = self.read()
        name = task.encode()
        if len(name) <= TASK_NAME_MAX_BYTES:
            body = _SUSPECT.pack((number + 1) % 2**64 or 1, len(name), name)
            self._page[self._at : self._at + SUSPECT_BYTES] = body + _CRC.pack(crc32(body))

    def read(self) -> tuple[int, str]:
        """A number that changes with each order, and the task; 0 if there is none."""
        found = self._page[self._at : self._at + SUSPECT_BYTES]
        body = found[: _SUSPECT.size]
        if crc32(body) != _CRC.unpack_from(found, _SUSPECT.size)[0]:
            return 0, ""
        number, size, name = _SUSPECT.unpack(body)
        return number, name[:size].decode("utf-8", "replace")


_SUSPECT = struct.Struct(f"<QB{TASK_NAME_MAX_BYTES}s")
_CRC = struct.Struct("<I")
SUSPECT_BYTES = _SUSPECT.size + _CRC.size
SLOTS = SLOT_RINGS + 1
_BALANCE = struct.Struct("<9d")
_CAPTURED = struct.Struct("<QQ")
_CELL_BYTES = _BALANCE.size + _CAPTURED.size
_CELLS_AT = COMMANDS_BYTES
_DROPPED_AT = _CELLS_AT + SLOTS * _CELL_BYTES
_BEAT = struct.Struct("<d")
_BEAT_AT = _DROPPED_AT + DropCounters.size_bytes(SLOTS)
_STEPPED_BACK_AT = _BEAT_AT + _BEAT.size
_STEPPED_BACK_BYTES = 2_048
_RINGS_AT = _STEPPED_BACK_AT + _STEPPED_BACK_BYTES
_GUESTS = struct.Struct(f"<{GUEST_RINGS}q")
_GUESTS_AT = _RINGS_AT + RINGS
_SUSPECT_AT = _GUESTS_AT + _GUESTS.size
_IN_FLIGHT_AT = 64 * 1024
assert _SUSPECT_AT + SUSPECT_BYTES <= _IN_FLIGHT_AT
_AREA_BYTES = 512
_OWNER = struct.Struct("<q")
IN_FLIGHT_BYTES = _AREA_BYTES - _OWNER.size
UNKNOWN, IDLE = 0, 1
"""First byte of a slot's area if it has no frame: not known what the process runs; no task runs."""
_EXITS_AT = _IN_FLIGHT_AT + SLOTS * _AREA_BYTES
PAGE_BYTES = _EXITS_AT + _EXITS_BYTES


class ControlPage:
    """The mapped page. The main process creates it; others open it by its descriptor."""

    def __init__(self, fd: int = -1, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Without a descriptor, only this process and its forks share the page."""
        self._map = mapped(fd, PAGE_BYTES)
        self._file = SharedFile(fd, CONTROL_PAGE)
        self._clock_s = clock_s
        self._commands = CommandArea(self._map, clock_s)
        self.acknowledged_exits = AcknowledgedExits(self._map, _EXITS_AT)
        self.suspect = Suspect(self._map, _SUSPECT_AT)
        self.drop_counters = DropCounters(self._map, _DROPPED_AT, SLOTS, _index)

    @property
    def fd(self) -> int:
        """Its descriptor, -1 if it has none; raises `OSError` if tasks have taken it away."""
        return self._file.fd

    @classmethod
    def create(
        cls,
        place: Callable[[int], int] = int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> ControlPage:
        """A new page, zeroed, in memory only; `place` may move its descriptor.

        Raises `OSError` if there is not enough memory.
        """
        fd = place(new_memory("otel_celery_memory"))
        return page_in(fd, PAGE_BYTES, lambda fd: cls(fd, clock_s), "control page")

    @classmethod
    def in_file(cls, fd: int) -> ControlPage:
        """A new page in an empty file; raises `OSError` if there is no space for it."""
        return page_in(fd, PAGE_BYTES, cls, "control page")

    def commands_version(self) -> bytes:
        """Changes with each `set_commands`."""
        return self._commands.version()

    def set_commands(self, commands: Commands) -> None:
        """Replaces the commands; only the main process does, one thread at a time."""
        self._commands.write(commands)

    def read_commands(self) -> Commands | None:
        """The commands now; ``None`` while they are being written, or if they are damaged."""
        return self._commands.read()

    def commands(self) -> Commands:
        """The commands now; the default if they cannot be read or have an impossible value."""
        return self._commands.read() or Commands()

    def in_flight_area(self, slot: int) -> tuple[mmap.mmap, int]:
        """The map and the offset of this slot's area, `IN_FLIGHT_BYTES` long.

        The process writes the frame of its task's start there, and `IDLE` into the first byte when
        the task has ended.
        """
        return self._map, _in_flight_at(slot)

    def claim(self, slot: int, pid: int) -> None:
        """Makes this process the owner of the slot; it has run no task yet."""
        at = _in_flight_at(slot)
        self._map[at] = UNKNOWN
        _OWNER.pack_into(self._map, at + IN_FLIGHT_BYTES, pid)
        self._map[at] = IDLE

    def in_flight(self, slot: int) -> bytes:
        """The frame in this slot's area, to be decoded and checked; empty if there is none."""
        at = _in_flight_at(slot)
        return self._map[at : at + IN_FLIGHT_BYTES] if self._map[at] > IDLE else b""

    def idle(self, slot: int, pid: int) -> bool:
        """Whether this process owns the slot and has written that all its tasks have ended."""
        at = _in_flight_at(slot)
        idle = has_in_flight_area(slot) and self._map[at] == IDLE
        return idle and _OWNER.unpack_from(self._map, at + IN_FLIGHT_BYTES) == (pid,)

    def clear_in_flight(self, slot: int) -> None:
        """Removes the frame of a process that died: its task in flight has been sent."""
        self._map[_in_flight_at(slot)] = UNKNOWN

    def save(self, slot: int, balance: Balance) -> None:
        """Stores the balance of this slot."""
        _BALANCE.pack_into(
            self._map,
            _cell(slot),
            balance.task_s,
            balance.spent_s,
            balance.recent_task_s,
            balance.recent_spent_s,
            balance.at_s,
            balance.runs,
            balance.run_s,
            balance.lived_s,
            balance.frames,
        )

    def load(self, slot: int) -> Balance:
        """The balance that the predecessor left; zeros if a value is impossible."""
        found = _BALANCE.unpack_from(self._map, _cell(slot))
        if not all(math.isfinite(value) and 0 <= value < 1e12 for value in found):
            return Balance()
        return Balance(*found)

    def captured(self, slot: int, capture: int) -> int:
        """How many windows of this capture the processes in this slot have sent.

        0 if it is not known, because slots share a cell.
        """
        number, windows = _CAPTURED.unpack_from(self._map, _cell(slot) + _BALANCE.size)
        known = number == capture and _index(slot) < SLOTS - 1
        return min(windows, CAPTURE_RUNS_MAX) if known else 0

    def count_captured(self, slot: int, capture: int) -> None:
        """Counts one more window of this capture that this slot has sent."""
        windows = self.captured(slot, capture) + 1
        _CAPTURED.pack_into(self._map, _cell(slot) + _BALANCE.size, capture, windows)

    def step_back_from(self, task: str) -> None:
        """Notes that the task of this name uses ``tracemalloc`` itself: nobody traces it again."""
        for byte, bit in _bits_of(task):
            self._map[byte] |= bit

    def steps_back_from(self, task: str) -> bool:
        """Whether that was noted; rarely it is said of another name by chance."""
        return all(self._map[byte] & bit for byte, bit in _bits_of(task))

    def totals(self) -> tuple[float, float]:
        """Seconds of task time, and of allocation tracing and samples of the counters, of all slots
        since the worker started.
        """
        balances = [self.load(slot) for slot in range(-1, SLOTS - 1)]
        return sum(b.task_s for b in balances), sum(b.spent_s for b in balances)

    def beat(self) -> None:
        """Writes the reporter's heartbeat; called at each turn of its loop."""
        _BEAT.pack_into(self._map, _BEAT_AT, self._clock_s())

    def last_beat(self) -> bytes:
        """Changes with each heartbeat. It is compared only, so no written value can mislead."""
        return self._map[_BEAT_AT : _BEAT_AT + _BEAT.size]

    def use_ring(self, index: int) -> None:
        """Has the reporter read this ring from now on."""
        self._map[_RINGS_AT + index] = 1

    def rings_used(self) -> list[int]:
        """The rings that a process has ever used."""
        used = self._map[_RINGS_AT : _RINGS_AT + RINGS]
        return [index for index, flag in enumerate(used) if flag]

    def guests(self) -> tuple[int, ...]:
        """The pid of the process that has each ring for guests; others may be written there too."""
        return _GUESTS.unpack_from(self._map, _GUESTS_AT)

    def set_guest(self, number: int, pid: int) -> None:
        """Gives a ring for guests to this process; one process at a time may call this."""
        struct.pack_into("<q", self._map, _GUESTS_AT + 8 * number, pid)

    def close(self) -> None:
        """Unmaps the memory and closes the descriptor."""
        self._file.close()
        self._map.close()


def has_in_flight_area(slot: int) -> bool:
    """Whether this slot has an area of its own: slots of the pool have one, main does not."""
    return 0 <= slot < SLOTS - 2


def _bits_of(task: str) -> list[tuple[int, int]]:
    """Where three bits of a name are: all three are another name's too once in millions."""
    digest = blake2b(task.encode("utf-8", "replace"), digest_size=6).digest()
    places = [place % (8 * _STEPPED_BACK_BYTES) for place in struct.unpack("<3H", digest)]
    return [(_STEPPED_BACK_AT + place // 8, 1 << place % 8) for place in places]


def _in_flight_at(slot: int) -> int:
    return _IN_FLIGHT_AT + _index(slot) * _AREA_BYTES


def _cell(slot: int) -> int:
    return _CELLS_AT + _index(slot) * _CELL_BYTES


def _index(slot: int) -> int:
    # Slots beyond the last cell share it.
    return min(max(slot + 1, 0), SLOTS - 1)
