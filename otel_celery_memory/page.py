"""The control page: memory that the worker's processes and the reporter share.

First what the main process orders: a number that changes with each order, the mode of tracing, and
the last capture asked for. Then a cell for each slot: frames its process had to drop, and what it
has earned and spent on tracing, which its successor begins with. A slot has one process at a time,
so no cell has two writers and no lock is needed. The reporter has one cell more.

What is read here is checked before it is used: a task that writes where it should not must not
make us trace for ever.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

SLOTS = 512
TRACING_MODES = ("budget", "always", "off")
CAPTURE_RUNS_MAX = 10_000
CAPTURE_SECONDS_MAX = 600.0
_CAPTURE_MAX = 2**63 - 1
"""What a record can carry."""

_ORDER = struct.Struct("<QQQQQdd")
_COUNT = struct.Struct("<Q")
_LEDGER = struct.Struct("<5d")
_CELL_BYTES = _COUNT.size + _LEDGER.size
_CELLS_AT = _ORDER.size
_DAMAGED_AT = _CELLS_AT + SLOTS * _CELL_BYTES
PAGE_BYTES = _DAMAGED_AT + _COUNT.size


@dataclass(frozen=True)
class Balance:
    """What the process in a slot earned and spent: seconds of task time and of tracing.

    ``recent_*`` have decayed until ``at_s`` on the monotonic clock; ``task_s`` and ``spent_s`` are
    totals since the worker started.
    """

    task_s: float = 0.0
    spent_s: float = 0.0
    recent_task_s: float = 0.0
    recent_spent_s: float = 0.0
    at_s: float = 0.0


@dataclass(frozen=True)
class Orders:
    """What the main process wants of those that run tasks.

    ``mode`` is empty where the settings' is meant. A capture is of the next ``runs`` runs in each
    process, or of those that begin until ``until_s`` on the monotonic clock where ``runs`` is 0;
    none of them is slowed by more than ``allowance_s``. ``capture`` is 0 where there is none.
    ``by_signal`` says who asked for it.
    """

    mode: str = ""
    capture: int = 0
    runs: int = 0
    by_signal: bool = False
    until_s: float = 0.0
    allowance_s: float = 0.0


class ControlPage:
    """The page, mapped; made by `create` in the main process, opened by descriptor elsewhere."""

    def __init__(self, fd: int = -1, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Without a descriptor it is this process's, and that of those it forks."""
        self.fd = fd
        self._clock_s = clock_s
        self._map = mmap.mmap(fd, PAGE_BYTES)

    @classmethod
    def create(
        cls,
        place: Callable[[int], int] = int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> ControlPage:
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
            return cls(fd, clock_s)
        except (OSError, ValueError):
            os.close(fd)
            raise OSError("no memory for the control page") from None

    def orders_number(self) -> bytes:
        """Changes with each order; compared before every task, so it is not even decoded."""
        return self._map[:8]

    def order(self, orders: Orders) -> None:
        """Give orders; the main process alone does."""
        (number,) = _COUNT.unpack_from(self._map, 0)
        mode = TRACING_MODES.index(orders.mode) + 1 if orders.mode else 0
        # The number last: who sees it sees the rest.
        _ORDER.pack_into(
            self._map,
            0,
            number,
            mode,
            orders.capture,
            orders.runs,
            orders.by_signal,
            orders.until_s,
            orders.allowance_s,
        )
        _COUNT.pack_into(self._map, 0, (number + 1) % 2**64)

    def orders(self) -> Orders:
        """The orders as they are now; none where they make no sense."""
        _, mode, capture, runs, signal, until_s, allowance_s = _ORDER.unpack_from(self._map, 0)
        if (
            mode > len(TRACING_MODES)
            or capture > _CAPTURE_MAX
            or runs > CAPTURE_RUNS_MAX
            or signal > 1
            or not 0 <= allowance_s <= CAPTURE_SECONDS_MAX
            or not 0 <= until_s <= self._clock_s() + CAPTURE_SECONDS_MAX
        ):
            return Orders()
        found = TRACING_MODES[mode - 1] if mode else ""
        return Orders(found, capture, runs, bool(signal), until_s, allowance_s)

    def save(self, slot: int, balance: Balance) -> None:
        """Keep what the process in this slot earned and spent."""
        _LEDGER.pack_into(
            self._map,
            _cell(slot) + _COUNT.size,
            balance.task_s,
            balance.spent_s,
            balance.recent_task_s,
            balance.recent_spent_s,
            balance.at_s,
        )

    def load(self, slot: int) -> Balance:
        """What the process before earned and spent; nothing where that makes no sense."""
        found = _LEDGER.unpack_from(self._map, _cell(slot) + _COUNT.size)
        if not all(math.isfinite(value) and 0 <= value < 1e12 for value in found):
            return Balance()
        return Balance(*found)

    def totals(self) -> tuple[float, float]:
        """Seconds of task time and of tracing, of all slots since the worker started."""
        balances = [self.load(slot) for slot in range(-1, SLOTS - 1)]
        return sum(b.task_s for b in balances), sum(b.spent_s for b in balances)

    def count_dropped(self, slot: int) -> None:
        """One more frame dropped by the process in this slot (main is -1)."""
        at = _cell(slot)
        (count,) = _COUNT.unpack_from(self._map, at)
        _COUNT.pack_into(self._map, at, (count + 1) % 2**64)

    def count_damaged(self, frames: int) -> None:
        """More frames that the reporter could not read; kept here, where its successor finds it."""
        (count,) = _COUNT.unpack_from(self._map, _DAMAGED_AT)
        _COUNT.pack_into(self._map, _DAMAGED_AT, (count + frames) % 2**64)

    def dropped(self) -> int:
        """Frames dropped by all processes since the worker started, and those damaged."""
        at = [*range(_CELLS_AT, _DAMAGED_AT, _CELL_BYTES), _DAMAGED_AT]
        total: int = sum(_COUNT.unpack_from(self._map, cell)[0] for cell in at)
        return min(total, 2**63 - 1)  # what OTLP can carry

    def close(self) -> None:
        """Give back the mapping and the descriptor."""
        self._map.close()
        if self.fd >= 0:
            os.close(self.fd)


def _cell(slot: int) -> int:
    # Slots beyond the page share its last cell.
    return _CELLS_AT + min(max(slot + 1, 0), SLOTS - 1) * _CELL_BYTES
