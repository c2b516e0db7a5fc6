"""Any process's memory and descriptors as ``/proc`` tells them, else psutil.

A file under ``/proc`` or in a cgroup may be missing, hidden, of another kernel's form, or be bound
over by somebody: it is read with a bound, its numbers are parsed strictly, and nothing here raises
for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_LIMIT_BYTES = 64 * 1024
_DIGITS_MAX = 19
"""What a signed 64-bit number can have; more than 4,300 digits would make `int` raise."""
PROC = Path("/proc")


def read_small(path: Path) -> str:
    """At most 64 KiB of a text file, in whole lines; empty where it cannot be read.

    Bytes that are no UTF-8 come as surrogates, as in the names that `os` takes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES)
    except (OSError, ValueError):
        return ""
    if len(data) == _LIMIT_BYTES:
        # Half a number is another number.
        data = data[: data.rfind(b"\n") + 1]
    return data.decode("utf-8", "surrogateescape")


def lines(text: str) -> list[str]:
    """Lines as the kernel ends them; `str.splitlines` ends them within a process's name, too."""
    return text.split("\n")


def whole_number(text: str) -> int | None:
    """A number of ASCII digits below 2**63, or ``None``: ``max``, a sign or garbage is none."""
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
    """``name 123`` lines, as in ``memory.stat`` and ``memory.events``; others are left out."""
    found: dict[str, int] = {}
    for line in lines(text):
        name, _, rest = line.partition(" ")
        number = whole_number(rest)
        if number is not None:
            found[name] = number
    return found


def status_numbers(text: str) -> dict[str, int]:
    """``Name:  123 kB`` lines, as in ``status`` and ``meminfo``, in bytes; ``Name:  123`` as is."""
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
    """One process's memory as seen from outside, or from itself; ``None`` is left out."""

    rss_bytes: int
    virtual_bytes: int | None = None
    swap_bytes: int | None = None
    unique_bytes: int | None = None
    proportional_bytes: int | None = None
    open_files: int | None = None
    open_files_limit: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class ProcessSize:
    """What ``statm`` tells: RSS, address space, and data with stack (``RLIMIT_DATA`` counts the
    data); ``None`` is left out."""

    rss_bytes: int
    virtual_bytes: int | None
    data_bytes: int | None


@dataclass(frozen=True)
class Rlimits:
    """A process's soft limits; ``None`` is unlimited, or hidden."""

    address_space_bytes: int | None = None
    data_bytes: int | None = None
    open_files: int | None = None


_RLIMITS = ("Max address space", "Max data size", "Max open files")


@dataclass(frozen=True)
class SharedMemory:
    """What of a process's memory is its own: USS and PSS; either may be missing."""

    unique_bytes: int | None
    proportional_bytes: int | None


def read_size(pid: int, proc: Path = PROC) -> ProcessSize | None:
    """The size of a process, ``None`` where it is gone or hidden: 12 us."""
    try:
        with open(f"{proc}/{pid}/statm", "rb") as file:  # noqa: PTH123 - half of Path's cost
            fields = file.read(256).decode("ascii", "replace").split()
        pages = whole_number(fields[1])
        # A zombie has no memory any more, nor a line to tell.
        return _size_of(fields) if pages else None
    except (OSError, ValueError, IndexError):
        pass
    if os.path.lexists(proc / "self"):
        return None
    try:
        info = psutil.Process(pid).memory_info()
    except (psutil.Error, ValueError, OverflowError):
        return None  # gone, or a damaged record's
    return ProcessSize(int(info.rss), int(info.vms), None)


def _size_of(fields: list[str]) -> ProcessSize | None:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    virtual, rss = (in_bytes(whole_number(field), page_bytes) for field in fields[:2])
    data = in_bytes(whole_number(fields[5]), page_bytes) if len(fields) > 5 else None
    return None if rss is None else ProcessSize(rss, virtual, data)


def read_start_ticks(pid: int, proc: Path = PROC) -> int | None:
    """When a process began, in ticks since boot; ``None`` where it is gone or hidden."""
    # Its name, in parentheses, may contain anything.
    fields = read_small(proc / str(pid) / "stat").rpartition(")")[2].split()
    return whole_number(fields[19]) if len(fields) > 19 else None


def read_exit_code(pid: int, proc: Path = PROC) -> int | None:
    """How a process ended that nobody has reaped yet: its exit code, or the signal's negative.

    ``None`` where it runs, is gone or hidden, and where it ended well: what is hidden reads 0.
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
    """Everything cheap about a process, ``None`` where it is gone or hidden."""
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
    """USS and PSS: 150 us and more, and the process's memory map is locked for it."""
    rollup = status_numbers(read_small(proc / str(pid) / "smaps_rollup"))
    own = [rollup[name] for name in ("Private_Clean", "Private_Dirty") if name in rollup]
    return SharedMemory(
        unique_bytes=in_bytes(sum(own), 1) if own else None, proportional_bytes=rollup.get("Pss")
    )


def _open_files(directory: Path) -> int | None:
    """Descriptors in use: the directory's size says it since Linux 6.2 (commit f1f1f2569901)."""
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
