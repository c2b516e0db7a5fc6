"""The limits a worker runs into: its cgroup's, its address space's and the machine's memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from otel_celery_memory.probes.proc import soft_limit

_UNLIMITED_V1_BYTES = 2**62
"""cgroup v1 says "unlimited" as the largest page-aligned 64-bit number."""


@dataclass(frozen=True)
class Limits:
    """Limits and the cgroup's charge in bytes; ``None`` where there is none, or it is hidden."""

    cgroup_bytes: int | None = None
    cgroup_used_bytes: int | None = None
    rlimit_as_bytes: int | None = None
    host_bytes: int | None = None


def read_limits(
    pid: int, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> Limits:
    """The limits that hold for a process now."""
    used, limit = _cgroup_memory(pid, proc, cgroup)
    return Limits(
        cgroup_bytes=limit,
        cgroup_used_bytes=used,
        rlimit_as_bytes=soft_limit(pid, "Max address space", proc),
        host_bytes=_host_bytes(proc),
    )


def _cgroup_memory(pid: int, proc: Path, cgroup: Path) -> tuple[int | None, int | None]:
    """Charge and lowest limit of the cgroup a process is in, v2 or v1.

    A limit of any ancestor holds too. Inside a container the path may lie outside what is
    mounted: then the mount itself is the container's cgroup.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None, None
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root, used_name, limit_name = cgroup, "memory.current", "memory.max"
        elif "memory" in controllers.split(","):
            root = cgroup / "memory"
            used_name, limit_name = "memory.usage_in_bytes", "memory.limit_in_bytes"
        else:
            continue
        directory = root / path.lstrip("/")
        if not (directory / used_name).is_file():
            directory = root
        used = _number(directory / used_name)
        if used is None:
            continue
        limits = []
        while True:
            limits.append(_number(directory / limit_name))
            if directory == root or root not in directory.parents:
                break
            directory = directory.parent
        return used, min((limit for limit in limits if limit is not None), default=None)
    return None, None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    if not text.isdigit() or int(text) >= _UNLIMITED_V1_BYTES:
        return None
    return int(text)


def _host_bytes(proc: Path) -> int | None:
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return int(psutil.virtual_memory().total)
    except (OSError, RuntimeError):
        return None
