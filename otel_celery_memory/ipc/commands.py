"""What the main process orders those that run tasks to do, and how orders lie in shared memory.

The main process alone gives orders; the others read them whole or not at all. No lock is between
them, and a number of eight bytes may be half written when it is read: a checksum over all of it
tells. What processes keep of tracing for those that come after them is here too.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

TRACING_MODES = ("budget", "always", "off")
CAPTURE_RUNS_MAX = 10_000
CAPTURE_SECONDS_MAX = 600.0
_CAPTURE_MAX = 2**63 - 1
"""What a record can carry."""
_BODY = struct.Struct("<QQQQQdd")
_CHECKSUM = struct.Struct("<Q")
COMMANDS_BYTES = _BODY.size + _CHECKSUM.size


@dataclass(frozen=True)
class Balance:
    """What the process in a slot earned and spent: seconds of task time and of tracing.

    ``recent_*`` have decayed until ``at_s`` on the monotonic clock; ``task_s`` and ``spent_s`` are
    totals since the worker started. ``asked_s`` is when it was last asked whether a run is traced,
    on the clock of the sampler's waits; ``run_s`` is how long a run took lately, of any task, and
    ``first_s`` the least that a first run may cost to be seen whole, as the last one traced shows.
    """

    task_s: float = 0.0
    spent_s: float = 0.0
    recent_task_s: float = 0.0
    recent_spent_s: float = 0.0
    at_s: float = 0.0
    asked_s: float = 0.0
    run_s: float = 0.0
    first_s: float = 0.0


@dataclass(frozen=True)
class Commands:
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


class CommandArea:
    """The orders at the head of a page; ``clock_s`` is monotonic."""

    def __init__(self, memory: mmap.mmap, clock_s: Callable[[], float]) -> None:
        self._map = memory
        self._clock_s = clock_s

    def version(self) -> bytes:
        """Changes with each order; compared before every task, so it is not even decoded."""
        return self._map[:8]

    def write(self, commands: Commands) -> None:
        """Give orders; one thread of one process at a time may."""
        number = (int.from_bytes(self.version(), "little") + 1) % 2**64
        body = _BODY.pack(
            number,
            TRACING_MODES.index(commands.mode) + 1 if commands.mode else 0,
            commands.capture,
            commands.runs,
            commands.by_signal,
            commands.until_s,
            commands.allowance_s,
        )
        self._map[:COMMANDS_BYTES] = body + _CHECKSUM.pack(crc32(body))

    def read(self) -> Commands | None:
        """The orders; none are given where they make no sense, ``None`` while they are written."""
        found = self._map[:COMMANDS_BYTES]
        if found == bytes(COMMANDS_BYTES):
            return Commands()
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
            return Commands()
        ordered = TRACING_MODES[mode - 1] if mode else ""
        return Commands(ordered, capture, runs, bool(signal), until_s, allowance_s)
