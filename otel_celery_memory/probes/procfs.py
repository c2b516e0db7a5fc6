"""Memory and descriptors of any process: from ``/proc``, otherwise from psutil.

A file under ``/proc`` or in a cgroup may be missing, hidden, another kernel's, or something else
mounted over it. So it is read with a bound, its numbers are parsed strictly, and nothing raises.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_LIMIT_BYTES = 64 * 1024
_DIGITS_MAX = 19
"""Digits of a signed 64-bit number; `int` raises for more than 4,300."""
PROC = Path("/proc")
TICK_NS = 1_000_000_000 // (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)
"""Starts of processes are known as well as that."""


def read_small(path: Path) -> str:
    """At most 64 KiB of a text file, in whole lines; empty where it cannot be read.

    Bytes that are not UTF-8 become surrogates, as in the file names of `os`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES)
    except (OSError, ValueError):
        return ""
    if len(data) == _LIMIT_BYTES:
        # Half a number would be another number.
        data = data[: data.rfind(b"\n") + 1]
    return data.decode("utf-8", "surrogateescape")


def lines(text: str) -> list[str]:
    """The lines; `str.splitlines` would also split at characters within a process's name."""
    return text.split("\n")


def whole_number(text: str) -> int | None:
    """A number of ASCII digits below 2**63; ``None`` for ``max``, a sign or garbage."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        return None
    number = int(text)
    return number if number < 2**63 else None


def in_bytes(count: int | None, unit_bytes: int) -> int | None:
    """A count of pages or KiB in bytes; ``None`` where OTLP could not carry it."""
    if count is None or count * unit_bytes >= 2**63:
        return None
    return count * unit_bytes


def keyed_numbers(text: str) -> dict[str, int]:
    """The ``name 123`` lines, as in ``memory.stat`` and ``memory.events``."""
    found: dict[str, int] = {}
    for line in lines(text):
        name, _, rest = line.partition(" ")
        number = whole_number(rest)
        if number is not None:
            found[name] = number
    return found


def status_numbers(text: str) -> dict[str, int]:
    """The ``Name:   123 kB`` lines, as in ``status`` and ``meminfo``, in bytes."""
    found: dict[str, int] = {}
    for line in lines(text):
        name, _, rest = line.partition(":")
        number, *unit = rest.split() or [""]
        if unit in ([], ["kB"]):
            value = in_bytes(whole_number(number), 1024 if unit else 1)
            if value is not None:
                found[name] = value
    return found


@dataclass(frozen=True)
class ProcessReading:
    """One process's memory and descriptors; ``None``: unknown."""

    rss_bytes: int
    virtual_bytes: int | None = None
    swap_bytes: int | None = None
    unique_bytes: int | None = None
    unique_at_start_bytes: int | None = None
    copied_bytes: int | None = None
    """What was shared and written at the start and is not shared any more."""
    proportional_bytes: int | None = None
    open_files: int | None = None
    open_files_limit: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class ProcessSize:
    """``statm``: RSS, address space, and data with stack; ``None``: unknown.

    ``RLIMIT_DATA`` limits the data.
    """

    rss_bytes: int
    virtual_bytes: int | None
    data_bytes: int | None


@dataclass(frozen=True)
class Rlimits:
    """A process's soft limits; ``None``: unlimited, or hidden."""

    address_space_bytes: int | None = None
    data_bytes: int | None = None
    open_files: int | None = None


_RLIMITS = ("Max address space", "Max data size", "Max open files")


@dataclass(frozen=True)
class SharedMemory:
    """USS, PSS, and written memory that others have too, of a process; ``None``: unknown."""

    unique_bytes: int | None
    proportional_bytes: int | None
    shared_dirty_bytes: int | None = None


@dataclass(frozen=True)
class ProcessStat:
    """``stat``: where a process belongs, and since when it runs."""

    pid: int
    name: str
    ended: bool
    """A zombie: it has no memory and no children any more."""
    parent: int
    group: int
    session: int
    start_ticks: int
    """Since boot; with the pid it identifies the process."""

    @property
    def is_leader(self) -> bool:
        """Whether a session or process group has its pid as its number."""
        return self.pid in (self.session, self.group)

    def is_same(self, other: ProcessStat | None) -> bool:
        """Whether both are of one process, and not of a later one that has its pid."""
        return other is not None and self.start_ticks == other.start_ticks


def read_size(pid: int, proc: Path = PROC) -> ProcessSize | None:
    """The size of a process in 12 us; ``None`` where it is gone or hidden."""
    try:
        with open(f"{proc}/{pid}/statm", "rb") as file:  # noqa: PTH123 - half of Path's cost
            fields = file.read(256).decode("ascii", "replace").split()
        pages = whole_number(fields[1])
        # A zombie has no memory any more.
        return _size_of(fields) if pages else None
    except (OSError, ValueError, IndexError):
        pass
    if os.path.lexists(proc / "self"):
        return None
    try:
        info = psutil.Process(pid).memory_info()
    except (psutil.Error, ValueError, OverflowError):
        return None  # gone, or the pid of a damaged record
    return ProcessSize(int(info.rss), int(info.vms), None)


def _size_of(fields: list[str]) -> ProcessSize | None:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    virtual, rss = (in_bytes(whole_number(field), page_bytes) for field in fields[:2])
    data = in_bytes(whole_number(fields[5]), page_bytes) if len(fields) > 5 else None
    return None if rss is None else ProcessSize(rss, virtual, data)


def read_stat(pid: int, proc: Path = PROC) -> ProcessStat | None:
    """Where a process belongs, in 20 us; ``None`` where it is gone or hidden."""
    try:
        with open(f"{proc}/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - see above
            text = file.read(2_048).decode("ascii", "replace")
    except (OSError, ValueError):
        return None
    # The name, in parentheses, may contain anything.
    before, _, after = text.rpartition(")")
    state, *rest = after.split()[:20] or [""]
    numbers = [whole_number(field) for field in rest]
    if len(numbers) < 19 or None in (*numbers[:3], numbers[18]):
        return None
    parent, group, session = (number or 0 for number in numbers[:3])
    name = before.partition("(")[2]
    return ProcessStat(pid, name, state in "ZX", parent, group, session, numbers[18] or 0)


def read_children(pid: int, proc: Path = PROC) -> list[int]:
    """The children of all threads of a process, where the kernel lists them.

    While children end, others may be missing. Each must be checked: its pid may be another
    process's by then.
    """
    found: list[int] = []
    try:
        threads = os.listdir(f"{proc}/{pid}/task")  # noqa: PTH208 - half of Path's cost
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"{proc}/{pid}/task/{thread}/children", "rb", buffering=0) as file:  # noqa: PTH123
                words = file.readall().decode("ascii", "replace").split()
        except OSError:
            continue
        found += [child for word in words if (child := whole_number(word))]
    return found


def lists_children(proc: Path = PROC) -> bool:
    """Whether the kernel lists children (``CONFIG_PROC_CHILDREN``); that costs one process."""
    return (proc / "thread-self" / "children").exists()


def read_pids(proc: Path = PROC) -> set[int]:
    """All processes of the machine, or of the container; empty where there is no ``/proc``."""
    try:
        return {int(name) for name in os.listdir(proc) if name.isdecimal() and name.isascii()}  # noqa: PTH208
    except OSError:
        return set()


def read_cmdline(pid: int, proc: Path = PROC) -> str:
    """The command line with its words separated by NUL; empty where it cannot be read."""
    return read_small(proc / str(pid) / "cmdline")


def exists(pid: int) -> bool:
    """Whether a process is there, hidden or not, as the kernel's answer to no signal."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def boot_time_ns() -> int:
    """When the machine, or this container's time, began, since the epoch.

    `ProcessStat.start_ticks` counts from there.
    """
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def read_start_ticks(pid: int, proc: Path = PROC) -> int | None:
    """When a process started, in ticks since boot; ``None`` where it is gone or hidden."""
    # Its name, in parentheses, may contain anything.
    fields = read_small(proc / str(pid) / "stat").rpartition(")")[2].split()
    return whole_number(fields[19]) if len(fields) > 19 else None


def read_exit_code(pid: int, proc: Path = PROC) -> int | None:
    """The exit code of a process that was not reaped yet, negative for a signal.

    ``None`` where it runs, is gone or hidden, and also for 0: a hidden exit code reads 0.
    """
    fields = read_small(proc / str(pid) / "stat").rpartition(")")[2].split()
    if len(fields) <= 49 or fields[0] not in ("Z", "X"):
        return None
    status = whole_number(fields[49])
    return os.waitstatus_to_exitcode(status) if status else None


def read_rss_bytes(pid: int, proc: Path = PROC) -> int | None:
    """RSS of a process, ``None`` where it is gone or hidden."""
    size = read_size(pid, proc)
    return None if size is None else size.rss_bytes


def read_process(pid: int, proc: Path = PROC) -> ProcessReading | None:
    """All that is cheap to read of a process; ``None`` where it is gone or hidden."""
    rss_bytes = read_rss_bytes(pid, proc)
    if rss_bytes is None:
        return None
    directory = proc / str(pid)
    status = status_numbers(read_small(directory / "status"))
    return ProcessReading(
        rss_bytes=rss_bytes,
        virtual_bytes=status.get("VmSize"),
        swap_bytes=status.get("VmSwap"),
        open_files=_open_files(directory / "fd"),
        open_files_limit=read_rlimits(pid, proc).open_files,
        threads=status.get("Threads"),
    )


def read_shared(pid: int, proc: Path = PROC) -> SharedMemory:
    """USS and PSS. It takes 150 us or more, in which the process's memory map is locked."""
    rollup = status_numbers(read_small(proc / str(pid) / "smaps_rollup"))
    own = [rollup[name] for name in ("Private_Clean", "Private_Dirty") if name in rollup]
    return SharedMemory(
        unique_bytes=in_bytes(sum(own), 1) if own else None,
        proportional_bytes=rollup.get("Pss"),
        shared_dirty_bytes=rollup.get("Shared_Dirty"),
    )


def _open_files(directory: Path) -> int | None:
    """Descriptors in use: the directory's size since Linux 6.2 (commit f1f1f2569901)."""
    try:
        return directory.stat().st_size or sum(1 for _ in directory.iterdir())
    except OSError:
        return None


def read_rlimits(pid: int, proc: Path = PROC) -> Rlimits:
    """The soft limits of ``/proc/<pid>/limits``."""
    found: dict[str, int] = {}
    for line in lines(read_small(proc / str(pid) / "limits")):
        for name in _RLIMITS:
            if line.startswith(f"{name} "):
                soft = whole_number((line[len(name) :].split() or [""])[0])
                if soft is not None:
                    found[name] = soft
    return Rlimits(*(found.get(name) for name in _RLIMITS))
