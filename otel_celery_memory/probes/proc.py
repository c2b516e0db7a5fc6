"""Any process's memory and descriptors as ``/proc`` tells them, else psutil."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

PROC = Path("/proc")


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


@dataclass(frozen=True)
class SharedMemory:
    """What of a process's memory is its own: USS and PSS; either may be missing."""

    unique_bytes: int | None
    proportional_bytes: int | None


def read_rss_bytes(pid: int, proc: Path = PROC) -> int | None:
    """RSS of a process, ``None`` where it is gone or hidden."""
    try:
        text = (proc / str(pid) / "statm").read_bytes()
        # A zombie has no memory any more, nor a line to tell.
        return int(text.split(None, 2)[1]) * os.sysconf("SC_PAGE_SIZE") or None
    except (OSError, ValueError, IndexError):
        pass
    if (proc / "self").exists():
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def read_process(pid: int, proc: Path = PROC) -> ProcessReading | None:
    """Everything cheap about a process, ``None`` where it is gone or hidden."""
    rss_bytes = read_rss_bytes(pid, proc)
    if rss_bytes is None:
        return None
    directory = proc / str(pid)
    status = _kib_lines(directory / "status")
    return ProcessReading(
        rss_bytes=rss_bytes,
        virtual_bytes=status.get("VmSize"),
        swap_bytes=status.get("VmSwap"),
        open_files=_open_files(directory / "fd"),
        open_files_limit=soft_limit(pid, "Max open files", proc),
    )


def read_shared(pid: int, proc: Path = PROC) -> SharedMemory:
    """USS and PSS: 150 us and more, and the process's memory map is locked for it."""
    rollup = _kib_lines(proc / str(pid) / "smaps_rollup")
    own = [rollup[name] for name in ("Private_Clean", "Private_Dirty") if name in rollup]
    return SharedMemory(
        unique_bytes=sum(own) if own else None, proportional_bytes=rollup.get("Pss")
    )


def _kib_lines(path: Path) -> dict[str, int]:
    """``Name:   123 kB`` lines of a file as bytes; empty where it cannot be read."""
    found: dict[str, int] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return found
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        parts = rest.split()
        if len(parts) == 2 and parts[1] == "kB" and parts[0].isdigit():
            found[name] = int(parts[0]) * 1024
    return found


def _open_files(directory: Path) -> int | None:
    """Descriptors in use: the directory's size says it since Linux 6.2 (commit f1f1f2569901)."""
    try:
        return directory.stat().st_size or sum(1 for _ in directory.iterdir())
    except OSError:
        return None


def soft_limit(pid: int, name: str, proc: Path = PROC) -> int | None:
    """A soft limit of ``/proc/<pid>/limits`` by its name; ``None`` where there is none."""
    try:
        text = (proc / str(pid) / "limits").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(name):
            soft = line[len(name) :].split()[:1]
            return int(soft[0]) if soft and soft[0].isdigit() else None
    return None
