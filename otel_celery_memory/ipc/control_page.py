"""The control page: memory that the worker's processes and the reporter share.

First what the main process orders (`commands.py`): a number that changes with each order, the mode
of tracing, and the last capture asked for. Then a cell for each slot: what its process has earned
and spent on tracing and has sent of a capture, with which its successor goes on. Then the frames
that were dropped, and the reporter's heartbeat.
Then for each slot the frame of the task that its process is running: it is there for as long as
the task runs, and where the task takes its process with it, it stays until that has been told. Its
first byte says whether one runs at all. At the end are the ends that were told. A slot
has one process at a time, and the main process lets one thread give orders: nothing has two
writers, and no lock is shared between processes.

What is read here is checked before it is used: a task that writes where it should not must not
make us trace for ever.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from otel_celery_memory.ipc.commands import (
    CAPTURE_RUNS_MAX,
    COMMANDS_BYTES,
    Balance,
    CommandArea,
    Commands,
)
from otel_celery_memory.ipc.shared_memory import new_memory, page_in

_COUNT = struct.Struct("<Q")
_CELL = struct.Struct("<QQ")
_COUNT_MAX = 2**63 - 1
"""What OTLP can carry."""
ACKNOWLEDGED_EXITS_MAX = 4_096
"""More than end in an interval of exports: a successor takes in once more what it brought."""
_EXIT_COUNT = struct.Struct("<Q")
_PIDS = struct.Struct(f"<{ACKNOWLEDGED_EXITS_MAX}q")
_EXITS_BYTES = _EXIT_COUNT.size + _PIDS.size


class DropCounts(NamedTuple):
    """How many frames did not arrive, by what they were."""

    task_ends: int
    others: int
    damaged: int
    """Runs of bytes that were no frame any more: of what is not known."""

    @property
    def total(self) -> int:
        """Of all kinds."""
        return min(sum(self), _COUNT_MAX)

    def since(self, before: DropCounts) -> DropCounts:
        """What was dropped since then."""
        return DropCounts(*(now - then for now, then in zip(self, before, strict=True)))


NO_DROPS = DropCounts(0, 0, 0)


class DropCounters:
    """A cell for each slot, which has one writer, and one for the reporter."""

    def __init__(self, page: mmap.mmap, at: int, slots: int, index: Callable[[int], int]) -> None:
        """``index`` says which cell is a slot's."""
        self._page = page
        self._at = at
        self._index = index
        self._damaged_at = at + slots * _CELL.size

    @staticmethod
    def size_bytes(slots: int) -> int:
        """What so many slots take of a page."""
        return slots * _CELL.size + _COUNT.size

    def count(self, slot: int, *, task_end: bool = False) -> None:
        """One more frame dropped by the process in this slot (main is -1)."""
        self._add(self._at + self._index(slot) * _CELL.size + (0 if task_end else _COUNT.size), 1)

    def count_damaged(self, frames: int) -> None:
        """More frames that the reporter could not read; kept here, where its successor finds it."""
        self._add(self._damaged_at, frames)

    def counts(self) -> DropCounts:
        """Of all processes since the worker started."""
        cells = list(_CELL.iter_unpack(self._page[self._at : self._damaged_at]))
        (damaged,) = _COUNT.unpack_from(self._page, self._damaged_at)
        sums = (sum(ends for ends, _ in cells), sum(others for _, others in cells), damaged)
        return DropCounts(*(min(each, _COUNT_MAX) for each in sums))

    def _add(self, at: int, frames: int) -> None:
        (count,) = _COUNT.unpack_from(self._page, at)
        _COUNT.pack_into(self._page, at, (count + frames) % 2**64)


class AcknowledgedExits:
    """A ring of pids; written by the reporter, read by the main process."""

    def __init__(self, page: mmap.mmap, at: int) -> None:
        self._page = page
        self._at = at
        self._lock = Lock()

    def add(self, pid: int) -> None:
        """The end of this process has been told; called by the loop and by who sends events."""
        with self._lock:
            (count,) = _EXIT_COUNT.unpack_from(self._page, self._at)
            place = self._at + _EXIT_COUNT.size + 8 * (count % ACKNOWLEDGED_EXITS_MAX)
            struct.pack_into("<q", self._page, place, pid)
            _EXIT_COUNT.pack_into(self._page, self._at, (count + 1) % 2**64)

    def pids(self) -> frozenset[int]:
        """The processes whose ends were told last."""
        found = _PIDS.unpack_from(self._page, self._at + _EXIT_COUNT.size)
        return frozenset(pid for pid in found if pid > 0)


SLOTS = 512
_BALANCE = struct.Struct("<8d")
_CAPTURED = struct.Struct("<QQ")
_CELL_BYTES = _BALANCE.size + _CAPTURED.size
_CELLS_AT = COMMANDS_BYTES
_DROPPED_AT = _CELLS_AT + SLOTS * _CELL_BYTES
_BEAT = struct.Struct("<d")
_BEAT_AT = _DROPPED_AT + DropCounters.size_bytes(SLOTS)
_IN_FLIGHT_AT = 64 * 1024
_AREA_BYTES = 512
_OWNER = struct.Struct("<q")
IN_FLIGHT_BYTES = _AREA_BYTES - _OWNER.size
UNKNOWN, IDLE = 0, 1
"""First bytes of a slot's place: nobody says what its process runs; all that it ran has ended."""
_EXITS_AT = _IN_FLIGHT_AT + SLOTS * _AREA_BYTES
PAGE_BYTES = _EXITS_AT + _EXITS_BYTES


class ControlPage:
    """The page, mapped; made by `create` in the main process, opened by descriptor elsewhere."""

    def __init__(self, fd: int = -1, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Without a descriptor it is this process's, and that of those it forks."""
        self.fd = fd
        self._clock_s = clock_s
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self._commands = CommandArea(self._map, clock_s)
        self.acknowledged_exits = AcknowledgedExits(self._map, _EXITS_AT)
        self.drop_counters = DropCounters(self._map, _DROPPED_AT, SLOTS, _index)

    @classmethod
    def create(
        cls,
        place: Callable[[int], int] = int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> ControlPage:
        """A new page, zeroed, in memory only; `place` may move its descriptor.

        Raises `OSError` where there is no room for it.
        """
        fd = place(new_memory("otel_celery_memory"))
        return page_in(fd, PAGE_BYTES, lambda fd: cls(fd, clock_s), "control page")

    @classmethod
    def in_file(cls, fd: int) -> ControlPage:
        """A new page in an empty file; raises `OSError` where there is no room for it."""
        return page_in(fd, PAGE_BYTES, cls, "control page")

    def commands_version(self) -> bytes:
        """Changes with each order."""
        return self._commands.version()

    def set_commands(self, commands: Commands) -> None:
        """Give orders; the main process alone does, one thread at a time."""
        self._commands.write(commands)

    def read_commands(self) -> Commands | None:
        """The orders as they are now; ``None`` while they are being written, or damaged."""
        return self._commands.read()

    def commands(self) -> Commands:
        """The orders as they are now; none where they are not whole or make no sense."""
        return self._commands.read() or Commands()

    def in_flight_area(self, slot: int) -> tuple[mmap.mmap, int]:
        """Where the process in this slot holds the frame of its task: `IN_FLIGHT_BYTES` from there.

        It writes the whole frame, and `IDLE` in its first byte when the task has ended.
        """
        return self._map, _in_flight_at(slot)

    def claim(self, slot: int, pid: int) -> None:
        """This process has the slot from now on, and has run nothing yet."""
        at = _in_flight_at(slot)
        self._map[at] = UNKNOWN
        _OWNER.pack_into(self._map, at + IN_FLIGHT_BYTES, pid)
        self._map[at] = IDLE

    def in_flight(self, slot: int) -> bytes:
        """What the process in this slot holds; to be decoded, which tells whether it is whole."""
        at = _in_flight_at(slot)
        return self._map[at : at + IN_FLIGHT_BYTES] if self._map[at] > IDLE else b""

    def idle(self, slot: int, pid: int) -> bool:
        """Whether this process says that all that it ran has ended."""
        at = _in_flight_at(slot)
        said = has_in_flight_area(slot) and self._map[at] == IDLE
        return said and _OWNER.unpack_from(self._map, at + IN_FLIGHT_BYTES) == (pid,)

    def clear_in_flight(self, slot: int) -> None:
        """Nothing is held: what its process had held when it died has been told."""
        self._map[_in_flight_at(slot)] = UNKNOWN

    def save(self, slot: int, balance: Balance) -> None:
        """Keep what the process in this slot earned and spent."""
        _BALANCE.pack_into(
            self._map,
            _cell(slot),
            balance.task_s,
            balance.spent_s,
            balance.recent_task_s,
            balance.recent_spent_s,
            balance.at_s,
            balance.asked_s,
            balance.run_s,
            balance.first_s,
        )

    def load(self, slot: int) -> Balance:
        """What the process before earned and spent; nothing where that makes no sense."""
        found = _BALANCE.unpack_from(self._map, _cell(slot))
        if not all(math.isfinite(value) and 0 <= value < 1e12 for value in found):
            return Balance()
        return Balance(*found)

    def captured(self, slot: int, capture: int) -> int:
        """How many windows of this capture the processes in this slot have sent.

        Not known where slots share a cell.
        """
        number, windows = _CAPTURED.unpack_from(self._map, _cell(slot) + _BALANCE.size)
        known = number == capture and _index(slot) < SLOTS - 1
        return min(windows, CAPTURE_RUNS_MAX) if known else 0

    def count_captured(self, slot: int, capture: int) -> None:
        """One more window of this capture has been sent from this slot."""
        windows = self.captured(slot, capture) + 1
        _CAPTURED.pack_into(self._map, _cell(slot) + _BALANCE.size, capture, windows)

    def totals(self) -> tuple[float, float]:
        """Seconds of task time and of tracing, of all slots since the worker started."""
        balances = [self.load(slot) for slot in range(-1, SLOTS - 1)]
        return sum(b.task_s for b in balances), sum(b.spent_s for b in balances)

    def beat(self) -> None:
        """The reporter is at work: the time, at each turn of its loop."""
        _BEAT.pack_into(self._map, _BEAT_AT, self._clock_s())

    def last_beat(self) -> bytes:
        """Changes with each beat; not decoded, so that nothing that is written here can mislead."""
        return self._map[_BEAT_AT : _BEAT_AT + _BEAT.size]

    def close(self) -> None:
        """Give back the mapping and the descriptor."""
        self._map.close()
        if self.fd >= 0:
            os.close(self.fd)


def has_in_flight_area(slot: int) -> bool:
    """Whether the process in this slot holds its task in a place of its own: a child's does."""
    return 0 <= slot < SLOTS - 2


def _in_flight_at(slot: int) -> int:
    return _IN_FLIGHT_AT + _index(slot) * _AREA_BYTES


def _cell(slot: int) -> int:
    return _CELLS_AT + _index(slot) * _CELL_BYTES


def _index(slot: int) -> int:
    # Slots beyond the page share its last cell.
    return min(max(slot + 1, 0), SLOTS - 1)
