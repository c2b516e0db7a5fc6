"""Ends of processes that a reporter has told: the last ones, on the control page.

A reporter that is killed takes with it what it had read and not sent. Its successor is told by the
main process of all children that ended lately, but for those that are written here.
"""

from __future__ import annotations

import mmap
import struct
from threading import Lock

TOLD_MAX = 4_096
"""More than end in an interval of exports: a successor takes in once more what it brought."""
_TOLD_COUNT = struct.Struct("<Q")
_PIDS = struct.Struct(f"<{TOLD_MAX}q")
TOLD_BYTES = _TOLD_COUNT.size + _PIDS.size


class ToldEnds:
    """A ring of pids; written by the reporter, read by the main process."""

    def __init__(self, page: mmap.mmap, at: int) -> None:
        self._page = page
        self._at = at
        self._lock = Lock()

    def add(self, pid: int) -> None:
        """The end of this process has been told; called by the loop and by who sends events."""
        with self._lock:
            (count,) = _TOLD_COUNT.unpack_from(self._page, self._at)
            place = self._at + _TOLD_COUNT.size + 8 * (count % TOLD_MAX)
            struct.pack_into("<q", self._page, place, pid)
            _TOLD_COUNT.pack_into(self._page, self._at, (count + 1) % 2**64)

    def pids(self) -> frozenset[int]:
        """The processes whose ends were told last."""
        found = _PIDS.unpack_from(self._page, self._at + _TOLD_COUNT.size)
        return frozenset(pid for pid in found if pid > 0)
