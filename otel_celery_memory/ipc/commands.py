"""The commands that the main process gives to the processes that run tasks, in shared memory.

Only the main process writes commands. Readers take no lock, so commands may be half written when
they are read, even inside a number of eight bytes. A checksum over all of them shows that; the
reader then keeps the commands it has until the next task. `Balance` is here too: what a process
leaves to its successor about the cost of allocation tracing.
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
"""The largest capture number that a record can carry."""
TASK_NAME_MAX_BYTES = 255
_BODY = struct.Struct(f"<QQQQQddQB{TASK_NAME_MAX_BYTES}s")
_CHECKSUM = struct.Struct("<Q")
COMMANDS_BYTES = _BODY.size + _CHECKSUM.size


@dataclass(frozen=True)
class Balance:
    """What a slot earned and spent: seconds of task time and of allocation tracing.

    ``task_s`` and ``spent_s`` are totals since the worker started; samples of the counters are in
    the second. ``recent_*`` are decayed totals of what earns as task time does and of tracing
    alone, as of ``at_s`` on the monotonic clock. ``runs`` is how many runs the process had in the
    ``lived_s`` seconds since it began, ``run_s`` the CPU time of one that was not traced, on the
    mean. ``frames`` is how many of each stack its windows kept, if that was more than the fewest.
    """

    task_s: float = 0.0
    spent_s: float = 0.0
    recent_task_s: float = 0.0
    recent_spent_s: float = 0.0
    at_s: float = 0.0
    runs: float = 0.0
    run_s: float = 0.0
    lived_s: float = 0.0
    frames: float = 0.0


NO_BALANCE = Balance()
"""Of a slot that has had no process."""


@dataclass(frozen=True)
class Commands:
    """The mode of allocation tracing and the last capture or census that people asked for.

    ``mode`` is one of `TRACING_MODES`, or empty for the mode of the settings. ``capture`` is the
    number of the capture, 0 if there is none. It covers the next ``runs`` runs in each process or,
    if ``runs`` is 0, the runs that begin before ``until_s`` on the monotonic clock. It slows no
    run by more than ``allowance_s`` seconds. ``by_signal`` is true if a signal began it. ``task``
    is the task whose runs are meant, empty for all.

    ``census`` is the number of a census of objects, 0 if there is none, and the rest is of that
    then: captures and censuses are numbered together, and one of them is taken at a time.
    """

    mode: str = ""
    capture: int = 0
    runs: int = 0
    by_signal: bool = False
    until_s: float = 0.0
    allowance_s: float = 0.0
    census: int = 0
    task: str = ""

    @property
    def number(self) -> int:
        """The number of the capture or census; 0 if there is none."""
        return max(self.capture, self.census)


class CommandArea:
    """The commands at the head of a page; ``clock_s`` is monotonic."""

    def __init__(self, memory: mmap.mmap, clock_s: Callable[[], float]) -> None:
        self._map = memory
        self._clock_s = clock_s

    def version(self) -> bytes:
        """Changes with each write. It is compared before every task, so it is not decoded."""
        return self._map[:8]

    def write(self, commands: Commands) -> None:
        """Replaces the commands; one thread of one process at a time may call it."""
        number = (int.from_bytes(self.version(), "little") + 1) % 2**64
        body = _BODY.pack(
            number,
            TRACING_MODES.index(commands.mode) + 1 if commands.mode else 0,
            commands.capture,
            commands.runs,
            commands.by_signal,
            commands.until_s,
            commands.allowance_s,
            commands.census,
            len(task := commands.task.encode()),
            task,
        )
        self._map[:COMMANDS_BYTES] = body + _CHECKSUM.pack(crc32(body))

    def read(self) -> Commands | None:
        """The commands; ``None`` during a write, the default if a value is impossible."""
        found = self._map[:COMMANDS_BYTES]
        if found == bytes(COMMANDS_BYTES):
            return Commands()
        body = found[: _BODY.size]
        if crc32(body) != _CHECKSUM.unpack_from(found, _BODY.size)[0]:
            return None
        _, mode, capture, runs, signal, until_s, allowance_s, census, size, name = _BODY.unpack(
            body
        )
        if (
            mode > len(TRACING_MODES)
            or max(capture, census) > _CAPTURE_MAX
            or (capture and census)
            or runs > CAPTURE_RUNS_MAX
            or signal > 1
            or not 0 <= allowance_s <= CAPTURE_SECONDS_MAX
            or not 0 <= until_s <= self._clock_s() + CAPTURE_SECONDS_MAX
        ):
            return Commands()
        mode_name = TRACING_MODES[mode - 1] if mode else ""
        task = name[:size].decode("utf-8", "replace")
        return Commands(mode_name, capture, runs, bool(signal), until_s, allowance_s, census, task)
