"""The control page: memory that the worker's processes and the reporter share.

One cell of eight bytes for each slot counts the frames its process had to drop. A slot has one
process at a time, so no cell has two writers and no lock is needed. The reporter has one more.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Callable

CELLS = 512
_CELL = struct.Struct("<Q")
PAGE_BYTES = (CELLS + 1) * _CELL.size


class ControlPage:
    """The page, mapped; made by `create` in the main process, `attach`\\ ed by descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, PAGE_BYTES)

    @classmethod
    def create(cls, place: Callable[[int], int] = int) -> ControlPage:
        """A new page, zeroed, in memory only; `place` may move its descriptor.

        Raises `OSError` where there is no room for it.
        """
        if hasattr(os, "memfd_create"):
            fd = place(os.memfd_create("otel_celery_memory", os.MFD_CLOEXEC))
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        try:
            os.ftruncate(fd, PAGE_BYTES)
            return cls(fd)
        except (OSError, ValueError):
            os.close(fd)
            raise OSError("no memory for the control page") from None

    def count_dropped(self, slot: int) -> None:
        """One more frame dropped by the process in this slot (main is -1)."""
        # Slots beyond the page share its last cell.
        at = min(slot + 1, CELLS - 1) * _CELL.size
        (count,) = _CELL.unpack_from(self._map, at)
        _CELL.pack_into(self._map, at, (count + 1) % 2**64)

    def count_damaged(self, frames: int) -> None:
        """More frames that the reporter could not read; kept here, where its successor finds it."""
        at = CELLS * _CELL.size
        (count,) = _CELL.unpack_from(self._map, at)
        _CELL.pack_into(self._map, at, (count + frames) % 2**64)

    def dropped(self) -> int:
        """Frames dropped by all processes since the worker started, and those damaged."""
        total: int = sum(cell for (cell,) in _CELL.iter_unpack(self._map[:PAGE_BYTES]))
        return min(total, 2**63 - 1)  # what OTLP can carry

    def close(self) -> None:
        """Give back the mapping and the descriptor."""
        self._map.close()
        os.close(self.fd)
