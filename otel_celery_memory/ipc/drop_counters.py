"""Frames that did not reach the reporter: counts on the control page, which outlives processes.

Ends of tasks are counted apart: as many tasks are missing in what was measured, to the task.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import NamedTuple

_COUNT = struct.Struct("<Q")
_CELL = struct.Struct("<QQ")
_COUNT_MAX = 2**63 - 1
"""What OTLP can carry."""


class Dropped(NamedTuple):
    """How many frames did not arrive, by what they were."""

    task_ends: int
    others: int
    damaged: int
    """Runs of bytes that were no frame any more: of what is not known."""

    @property
    def total(self) -> int:
        """Of all kinds."""
        return min(sum(self), _COUNT_MAX)

    def since(self, before: Dropped) -> Dropped:
        """What was dropped since then."""
        return Dropped(*(now - then for now, then in zip(self, before, strict=True)))


NOTHING = Dropped(0, 0, 0)


class DroppedFrames:
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

    def counts(self) -> Dropped:
        """Of all processes since the worker started."""
        cells = list(_CELL.iter_unpack(self._page[self._at : self._damaged_at]))
        (damaged,) = _COUNT.unpack_from(self._page, self._damaged_at)
        sums = (sum(ends for ends, _ in cells), sum(others for _, others in cells), damaged)
        return Dropped(*(min(each, _COUNT_MAX) for each in sums))

    def _add(self, at: int, frames: int) -> None:
        (count,) = _COUNT.unpack_from(self._page, at)
        _COUNT.pack_into(self._page, at, (count + frames) % 2**64)
