"""The limits a worker runs into: its memory cgroup's, its address space's and the machine's memory.

Cgroups are of version 1 or 2. A limit of any ancestor holds too, against the ancestor's own
charge. Inside a container the path in ``/proc/<pid>/cgroup`` may lie outside what is mounted: then
the mount is the container's. Names and meanings: Documentation/admin-guide/cgroup-v1/memory.rst
and cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from otel_celery_memory.probes.procfs import (
    PROC,
    keyed_numbers,
    lines,
    read_rlimits,
    read_small,
    status_numbers,
    whole_number,
)

MOUNT = Path("/sys/fs/cgroup")
_UNLIMITED_V1_BYTES = 2**62
"""Version 1 says "unlimited" as the largest page-aligned 64-bit number."""
_LEVELS_MAX = 64
_LINES_MAX = 64
"""A process is in one cgroup of each hierarchy, and version 1 has a dozen of these."""
_PATH_MAX_BYTES = 4096
"""The kernel tells no longer one (``proc_cgroup_show``, PATH_MAX)."""


@dataclass(frozen=True)
class Cgroup:
    """Where a process's memory cgroup is: its own directory first, then those around it."""

    version: int
    directories: tuple[Path, ...]


@dataclass(frozen=True)
class CgroupLevel:
    """One cgroup's charge and limits in bytes; ``None`` is no limit, or not told.

    ``inactive_file_bytes`` is charged but given back first: the kernel's page cache. What is
    under pressure is `working_bytes`, as Kubernetes counts it.
    """

    used_bytes: int
    inactive_file_bytes: int = 0
    limit_bytes: int | None = None
    high_bytes: int | None = None

    @property
    def working_bytes(self) -> int:
        """The charge less what the kernel would give back first."""
        return max(self.used_bytes - self.inactive_file_bytes, 0)


@dataclass(frozen=True)
class CgroupSwap:
    """Swap of one cgroup in bytes: charge and lowest limit around it."""

    used_bytes: int | None = None
    limit_bytes: int | None = None


def find_cgroup(pid: int, proc: Path = Path("/proc"), mount: Path = MOUNT) -> Cgroup | None:
    """The memory cgroup a process is in; ``None`` where there is none or it is hidden."""
    for line in lines(read_small(proc / str(pid) / "cgroup"))[:_LINES_MAX]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            version, root = 2, mount
        elif "memory" in controllers.split(","):
            version, root = 1, mount / "memory"
        else:
            continue
        directories = _from_root(root, path)
        for at, directory in enumerate(directories):
            # In version 2 the controller may not reach down to the process's own cgroup.
            if _has_charge(directory, version):
                return Cgroup(version, directories[at:])
    return None


def _has_charge(directory: Path, version: int) -> bool:
    try:
        return (directory / _used_name(version)).is_file()
    except (OSError, ValueError):
        return False  # a path that is too long, or none


def _used_name(version: int) -> str:
    return "memory.current" if version == 2 else "memory.usage_in_bytes"


def _from_root(root: Path, path: str) -> tuple[Path, ...]:
    """The directory that a cgroup's path names, those around it, and the root at the end."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    # ".." leads out of the cgroup namespace, where nothing is mounted.
    if len(path) > _PATH_MAX_BYTES or ".." in names:
        return (root,)
    depths = range(len(names), max(len(names) - _LEVELS_MAX, 0), -1)
    return (*(root.joinpath(*names[:depth]) for depth in depths), root)


def identity(cgroup: Cgroup) -> str:
    """A name for a cgroup that one made anew at the same path does not have."""
    own = cgroup.directories[0]
    try:
        return f"{own}:{own.stat().st_ino}"
    except OSError:
        return ""


def read_levels(cgroup: Cgroup) -> list[CgroupLevel]:
    """Charge and limits of the cgroup and of those around it that tell a charge, own first."""
    levels: list[CgroupLevel] = []
    for directory in cgroup.directories:
        used = _number(directory / _used_name(cgroup.version))
        if used is None:
            continue
        if cgroup.version == 2:
            limit, high = _number(directory / "memory.max"), _number(directory / "memory.high")
            name = "inactive_file"
        else:
            limit, high = _number(directory / "memory.limit_in_bytes"), None
            name = "total_inactive_file"
        inactive = 0
        # The kernel adds up memory.stat when it is read: not where it cannot matter.
        if 2 * used >= min(limit or used, high or used):
            inactive = keyed_numbers(read_small(directory / "memory.stat")).get(name, 0)
        levels.append(CgroupLevel(used, inactive, limit, high))
    return levels


def read_swap(cgroup: Cgroup) -> CgroupSwap:
    """Swap charged to the cgroup, and the lowest limit of it and of those around it.

    Version 1 counts memory and swap together: its swap limit is what is left beside memory's.
    """
    limits: list[int] = []
    used: int | None = None
    for at, directory in enumerate(cgroup.directories):
        if cgroup.version == 2:
            charge = _number(directory / "memory.swap.current")
            limit = _number(directory / "memory.swap.max")
        else:
            charge = _difference(directory, "memory.memsw.usage_in_bytes", "memory.usage_in_bytes")
            limit = _difference(directory, "memory.memsw.limit_in_bytes", "memory.limit_in_bytes")
        if at == 0:
            used = charge
        if limit is not None:
            limits.append(limit)
    return CgroupSwap(used, min(limits, default=None))


def _difference(directory: Path, whole: str, part: str) -> int | None:
    together, memory = _number(directory / whole), _number(directory / part)
    return None if together is None or memory is None else max(together - memory, 0)


def read_oom_kills(cgroup: Cgroup) -> int | None:
    """Processes of the cgroup that the kernel killed for want of memory, its own and the host's.

    Version 2 counts those of the cgroups below as well. Counted before the victim gets its
    signal, so whoever notices its death reads a count that includes it (``mm/oom_kill.c``).
    """
    own = cgroup.directories[0]
    name = "memory.events" if cgroup.version == 2 else "memory.oom_control"
    return keyed_numbers(read_small(own / name)).get("oom_kill")


def read_host_oom_kills(proc: Path = Path("/proc")) -> int | None:
    """The same of the whole machine, for where there is no memory cgroup (Linux 4.13)."""
    return keyed_numbers(read_small(proc / "vmstat")).get("oom_kill")


def _number(path: Path) -> int | None:
    number = whole_number(read_small(path))
    return None if number is None or number >= _UNLIMITED_V1_BYTES else number


@dataclass(frozen=True)
class Limits:
    """Limits and the cgroup's charges in bytes; ``None`` where there is none, or it is hidden.

    ``cgroup_high_bytes`` is where the kernel begins to slow the cgroup down and to reclaim
    (``memory.high``); of nested cgroups the lowest limit is told.
    """

    cgroup_bytes: int | None = None
    cgroup_used_bytes: int | None = None
    rlimit_as_bytes: int | None = None
    host_bytes: int | None = None
    cgroup_high_bytes: int | None = None
    cgroup_swap_bytes: int | None = None
    cgroup_swap_used_bytes: int | None = None
    rlimit_data_bytes: int | None = None


def read_limits(pid: int, proc: Path = PROC, mount: Path = MOUNT) -> Limits:
    """The limits that hold for a process now."""
    cgroup = find_cgroup(pid, proc, mount)
    levels = [] if cgroup is None else read_levels(cgroup)
    swap = CgroupSwap() if cgroup is None else read_swap(cgroup)
    rlimits = read_rlimits(pid, proc)
    return Limits(
        cgroup_bytes=_lowest([level.limit_bytes for level in levels]),
        cgroup_used_bytes=levels[0].used_bytes if levels else None,
        rlimit_as_bytes=rlimits.address_space_bytes,
        host_bytes=host_bytes(proc),
        cgroup_high_bytes=_lowest([level.high_bytes for level in levels]),
        cgroup_swap_bytes=swap.limit_bytes,
        cgroup_swap_used_bytes=swap.used_bytes,
        rlimit_data_bytes=rlimits.data_bytes,
    )


def oom_kill_counter(pid: int, proc: Path = PROC, mount: Path = MOUNT) -> Callable[[], int | None]:
    """A function that reads how many OOM kills the cgroup of a process has seen.

    The cgroup is looked up once, so that it can be asked after the process is gone. Where there
    is none the machine's count is read.
    """
    cgroup = find_cgroup(pid, proc, mount)
    if cgroup is None or read_oom_kills(cgroup) is None:
        return lambda: read_host_oom_kills(proc)
    found = cgroup
    return lambda: read_oom_kills(found)


def read_host_usage(proc: Path = PROC) -> tuple[int, int] | None:
    """The machine's memory that is not available to anybody, and all of it."""
    memory = status_numbers(read_small(proc / "meminfo"))
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    return None if total is None or available is None else (max(total - available, 0), total)


def host_bytes(proc: Path = PROC) -> int | None:
    """The machine's memory."""
    total = status_numbers(read_small(proc / "meminfo")).get("MemTotal")
    if total is not None:
        return total
    try:
        return int(psutil.virtual_memory().total)
    except (OSError, RuntimeError):
        return None


def _lowest(limits: list[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
