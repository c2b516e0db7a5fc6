"""The orders in shared memory: given by the main process, read whole or not at all by the others.

No lock is between them, and a number of eight bytes may be half written when it is read: a checksum
over all of it tells.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from zlib import crc32

from otel_celery_memory.ipc.commands import (
    CAPTURE_RUNS_MAX,
    CAPTURE_SECONDS_MAX,
    TRACING_MODES,
    Orders,
)

_CAPTURE_MAX = 2**63 - 1
"""What a record can carry."""
_BODY = struct.Struct("<QQQQQdd")
_CHECKSUM = struct.Struct("<Q")
ORDERED_BYTES = _BODY.size + _CHECKSUM.size


class Ordered:
    """The orders at the head of a page; ``clock_s`` is monotonic."""

    def __init__(self, memory: mmap.mmap, clock_s: Callable[[], float]) -> None:
        self._map = memory
        self._clock_s = clock_s

    def number(self) -> bytes:
        """Changes with each order; compared before every task, so it is not even decoded."""
        return self._map[:8]

    def write(self, orders: Orders) -> None:
        """Give orders; one thread of one process at a time may."""
        number = (int.from_bytes(self.number(), "little") + 1) % 2**64
        body = _BODY.pack(
            number,
            TRACING_MODES.index(orders.mode) + 1 if orders.mode else 0,
            orders.capture,
            orders.runs,
            orders.by_signal,
            orders.until_s,
            orders.allowance_s,
        )
        self._map[:ORDERED_BYTES] = body + _CHECKSUM.pack(crc32(body))

    def read(self) -> Orders | None:
        """The orders; none are given where they make no sense, ``None`` while they are written."""
        found = self._map[:ORDERED_BYTES]
        if found == bytes(ORDERED_BYTES):
            return Orders()
        body = found[: _BODY.size]
        if crc32(body) != _CHECKSUM.unpack_from(found, _BODY.size)[0]:
            return None
        _, mode, capture, runs, signal, until_s, allowance_s = _BODY.unpack(body)
        if (
            mode > len(TRACING_MODES)
            or capture > _CAPTURE_MAX
            or runs > CAPTURE_RUNS_MAX
            or signal > 1
            or not 0 <= allowance_s <= CAPTURE_SECONDS_MAX
            or not 0 <= until_s <= self._clock_s() + CAPTURE_SECONDS_MAX
        ):
            return Orders()
        ordered = TRACING_MODES[mode - 1] if mode else ""
        return Orders(ordered, capture, runs, bool(signal), until_s, allowance_s)
