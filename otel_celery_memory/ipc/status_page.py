"""The status page: the reporter's view of its worker, which the main process reads at any time.

One process writes, another reads, without a lock. A version number is odd during a write, and is
the same before and after a read that saw one complete view.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

from otel_celery_memory.ipc.shared_memory import SharedFile, mapped, new_memory, page_in
from otel_celery_memory.probes.descriptors import STATUS_PAGE

STATUS_BYTES = 256 * 1024
EVIDENCE = "evidence"
"""What the verdicts are drawn from, in the view: a reporter that is started again goes on. It is
not for people.
"""
_HEADER = struct.Struct("<QII")
_READ_ATTEMPTS = 20
_WAIT_S = 0.001


class StatusPage:
    """The mapped page. The main process creates it; others open it by its descriptor."""

    def __init__(self, fd: int = -1) -> None:
        """Without a descriptor, the page is private to this process."""
        self._map = mapped(fd, STATUS_BYTES)
        self._file = SharedFile(fd, STATUS_PAGE)

    @property
    def fd(self) -> int:
        """Its descriptor, -1 if it has none; raises `OSError` if tasks have taken it away."""
        return self._file.fd

    @classmethod
    def create(cls, place: Callable[[int], int] = int) -> StatusPage:
        """A new page, in memory only; raises `OSError` if there is not enough memory."""
        fd = place(new_memory("otel_celery_memory_status"))
        return page_in(fd, STATUS_BYTES, cls, "status page")

    def write(self, view: Mapping[str, Any]) -> bool:
        """Replaces the view; ``False`` if the new one is too large."""
        data = json.dumps(view, separators=(",", ":")).encode()
        if len(data) > STATUS_BYTES - _HEADER.size:
            return False
        number, _, _ = _HEADER.unpack_from(self._map, 0)
        number += number % 2  # a writer that was killed left it odd
        _HEADER.pack_into(self._map, 0, (number + 1) % 2**64, 0, 0)
        self._map[_HEADER.size : _HEADER.size + len(data)] = data
        _HEADER.pack_into(self._map, 0, (number + 2) % 2**64 or 2, len(data), crc32(data))
        return True

    def read(self) -> dict[str, Any] | None:
        """The last view; ``None`` if there is none, or no attempt read a complete one."""
        for attempt in range(_READ_ATTEMPTS):
            if attempt:
                time.sleep(_WAIT_S)
            number, length, checksum = _HEADER.unpack_from(self._map, 0)
            if not number:
                return None
            if not length or length > STATUS_BYTES - _HEADER.size:
                continue
            data = self._map[_HEADER.size : _HEADER.size + length]
            if number % 2 or number != _HEADER.unpack_from(self._map, 0)[0]:
                continue
            if crc32(data) == checksum:
                try:
                    found = json.loads(data)
                except (ValueError, RecursionError):
                    return None
                return found if isinstance(found, dict) else None
        return None

    def close(self) -> None:
        """Unmaps the memory and closes the descriptor."""
        self._file.close()
        self._map.close()
