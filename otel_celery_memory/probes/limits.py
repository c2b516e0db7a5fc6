"""The limits a worker runs into: its cgroup's, its address space's and the machine's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from otel_celery_memory.probes.cgroup import (
    MOUNT,
    CgroupSwap,
    find_cgroup,
    read_host_oom_kills,
    read_levels,
    read_oom_kills,
    read_swap,
)
from otel_celery_memory.probes.files import kib_numbers, read_small
from otel_celery_memory.probes.procfs import PROC, read_rlimits


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
    memory = kib_numbers(read_small(proc / "meminfo"))
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    return None if total is None or available is None else (max(total - available, 0), total)


def host_bytes(proc: Path = PROC) -> int | None:
    """The machine's memory."""
    total = kib_numbers(read_small(proc / "meminfo")).get("MemTotal")
    if total is not None:
        return total
    try:
        return int(psutil.virtual_memory().total)
    except (OSError, RuntimeError):
        return None


def _lowest(limits: list[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
