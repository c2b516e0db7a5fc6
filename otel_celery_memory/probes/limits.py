"""The limits of a worker: of its memory cgroup, its address space and the machine's memory.

Cgroups are of version 1 or 2. The limit of each ancestor holds as well, against the ancestor's own
charge. In a container the path in ``/proc/<pid>/cgroup`` may lie outside of what is mounted: then
the mount is the container's cgroup. Names and meanings:
Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
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
    read_size,
    read_small,
    status_numbers,
    whole_number,
)

MOUNT = Path("/sys/fs/cgroup")
_UNLIMITED_V1_BYTES = 2**62
"""In version 1 the largest page-aligned 64-bit number means "unlimited"."""
_LEVELS_MAX = 64
_LINES_MAX = 64
"""A process is in one cgroup of each hierarchy, and version 1 has a dozen hierarchies."""
_PATH_MAX_BYTES = 4096
"""The kernel writes no longer path (``proc_cgroup_show``, PATH_MAX)."""


@dataclass(frozen=True)
class Cgroup:
    """A process's memory cgroup: its own directory first, then its ancestors'."""

    version: int
    directories: tuple[Path, ...]


@dataclass(frozen=True)
class CgroupLevel:
    """One cgroup's charge and limits in bytes; ``None``: no limit, or unknown.

    ``inactive_file_bytes`` is page cache, which is charged but reclaimed first. `working_bytes` is
    the rest, as Kubernetes counts it.
    """

    used_bytes: int
    inactive_file_bytes: int = 0
    limit_bytes: int | None = None
    high_bytes: int | None = None

    @property
    def working_bytes(self) -> int:
        """The charge without what the kernel would reclaim first."""
        return max(self.used_bytes - self.inactive_file_bytes, 0)


@dataclass(frozen=True)
class CgroupSwap:
    """Swap of one cgroup in bytes: its charge, and the lowest limit of it and its ancestors."""

    used_bytes: int | None = None
    limit_bytes: int | None = None


def find_cgroup(pid: int, proc: Path = Path("/proc"), mount: Path = MOUNT) -> Cgroup | None:
    """The memory cgroup of a process; ``None`` where there is none or it is hidden."""
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
            # In version 2 the controller may be enabled for an ancestor only.
            if _has_charge(directory, version):
                return Cgroup(version, directories[at:])
    return None


def _has_charge(directory: Path, version: int) -> bool:
    try:
        return (directory / _used_name(version)).is_file()
    except (OSError, ValueError):
        return False  # not a path, or too long


def _used_name(version: int) -> str:
    return "memory.current" if version == 2 else "memory.usage_in_bytes"


def _from_root(root: Path, path: str) -> tuple[Path, ...]:
    """The directory that a cgroup's path names, then its ancestors', with the root at the end."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    # ".." leads out of the cgroup namespace, which is not mounted.
    if len(path) > _PATH_MAX_BYTES or ".." in names:
        return (root,)
    depths = range(len(names), max(len(names) - _LEVELS_MAX, 0), -1)
    return (*(root.joinpath(*names[:depth]) for depth in depths), root)


def identity(cgroup: Cgroup) -> str:
    """A name for a cgroup, other than that of a later one at the same path."""
    own = cgroup.directories[0]
    try:
        return f"{own}:{own.stat().st_ino}"
    except OSError:
        return ""


def read_levels(cgroup: Cgroup) -> list[CgroupLevel]:
    """Charge and limits of the cgroup and of the ancestors that have a charge, own first."""
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
        # Reading memory.stat makes the kernel add it up: not done where it cannot matter.
        if 2 * used >= min(limit or used, high or used):
            inactive = keyed_numbers(read_small(directory / "memory.stat")).get(name, 0)
        levels.append(CgroupLevel(used, inactive, limit, high))
    return levels


def read_swap(cgroup: Cgroup) -> CgroupSwap:
    """Swap charged to the cgroup, and the lowest limit of it and its ancestors.

    Version 1 counts memory and swap together: the limit of swap is the difference to memory's.
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
    """OOM kills in the cgroup since it was made; ``None`` where they are not counted.

    Version 2 counts those of the cgroups below as well. The kernel counts before it sends the
    signal, so a count that is read after a process's death includes it (``mm/oom_kill.c``).
    """
    own = cgroup.directories[0]
    name = "memory.events" if cgroup.version == 2 else "memory.oom_control"
    return keyed_numbers(read_small(own / name)).get("oom_kill")


def read_host_oom_kills(proc: Path = Path("/proc")) -> int | None:
    """OOM kills on the whole machine, for where there is no memory cgroup (Linux 4.13)."""
    return keyed_numbers(read_small(proc / "vmstat")).get("oom_kill")


def _number(path: Path) -> int | None:
    number = whole_number(read_small(path))
    return None if number is None or number >= _UNLIMITED_V1_BYTES else number


@dataclass(frozen=True)
class Limits:
    """Limits and the cgroup's charges in bytes; ``None`` where there is none, or it is hidden.

    At ``cgroup_high_bytes`` the kernel starts to throttle the cgroup and to reclaim
    (``memory.high``). Of nested cgroups the lowest limit counts.
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
    """The limits of a process now."""
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
    """A function that reads how many OOM kills there were in the cgroup of a process.

    The cgroup is found once, so that its count can be read after the process is gone. Where there
    is none, the machine's count is read.
    """
    cgroup = find_cgroup(pid, proc, mount)
    if cgroup is None or read_oom_kills(cgroup) is None:
        return lambda: read_host_oom_kills(proc)
    found = cgroup
    return lambda: read_oom_kills(found)


def read_host_usage(proc: Path = PROC) -> tuple[int, int] | None:
    """The machine's memory that is not available, and all of it, in bytes."""
    memory = status_numbers(read_small(proc / "meminfo"))
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    return None if total is None or available is None else (max(total - available, 0), total)


def room_bytes(pid: int, share: float, proc: Path = PROC, mount: Path = MOUNT) -> int | None:
    """How much a process can take until this share of any limit is used; ``None``: no limit known.

    Negative where a limit is that near already.
    """
    cgroup = find_cgroup(pid, proc, mount)
    usages: list[tuple[int | None, int | None]] = []
    for level in read_levels(cgroup) if cgroup is not None else ():
        usages += [
            (level.working_bytes, level.limit_bytes),
            (level.working_bytes, level.high_bytes),
        ]
    usages.append(read_host_usage(proc) or (None, None))
    size = read_size(pid, proc)
    if size is not None:
        rlimits = read_rlimits(pid, proc)
        usages.append((size.virtual_bytes, rlimits.address_space_bytes))
        usages.append((size.data_bytes, rlimits.data_bytes))
    return _lowest(
        [
            None if used is None or limit is None else int(share * limit) - used
            for used, limit in usages
        ]
    )


def host_bytes(proc: Path = PROC) -> int | None:
    """The machine's memory in bytes."""
    total = status_numbers(read_small(proc / "meminfo")).get("MemTotal")
    if total is not None:
        return total
    try:
        return int(psutil.virtual_memory().total)
    except (OSError, RuntimeError):
        return None


def _lowest(limits: list[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
