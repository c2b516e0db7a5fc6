"""How much of each limit of the worker is used now, by the cheapest reads that tell it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import MAIN_SLOT
from otel_celery_memory.probes.limits import (
    MOUNT,
    Cgroup,
    find_cgroup,
    read_host_usage,
    read_levels,
)
from otel_celery_memory.probes.procfs import PROC, ProcessSize, Rlimits, read_rlimits
from otel_celery_memory.reporter.pressure import Usage

_FRESH_FOR_S = 15.0
"""Limits of a process and the place of a cgroup rarely change."""


class Headroom:
    """Reads the usage of all limits; keeps what rarely changes."""

    def __init__(
        self,
        pid: int,
        max_memory_per_child_bytes: int | None,
        proc: Path = PROC,
        mount: Path = MOUNT,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``pid`` is a process of the worker's cgroup that lives as long as we do: our own."""
        self._pid = pid
        self._max_memory_bytes = max_memory_per_child_bytes
        self._proc = proc
        self._mount = mount
        self._clock_s = clock_s
        self._cgroup: Cgroup | None = None
        self._rlimits: dict[int, Rlimits] = {}
        self._fresh_until_s = float("-inf")
        self.latest: list[Usage] = []
        """What was read last."""

    def usages(
        self, sizes: Mapping[int, ProcessSize], slots: Mapping[int, int | None]
    ) -> list[Usage]:
        """Of the worker as a whole, and of each process in `sizes`."""
        now_s = self._clock_s()
        if now_s >= self._fresh_until_s:
            self._fresh_until_s = now_s + _FRESH_FOR_S
            self._cgroup = find_cgroup(self._pid, self._proc, self._mount)
            self._rlimits = {}
        found = self._of_worker()
        for pid, size in sizes.items():
            found += self._of_process(pid, size, slots.get(pid))
        self.latest = found
        return found

    def _of_worker(self) -> list[Usage]:
        found = []
        for level in [] if self._cgroup is None else read_levels(self._cgroup):
            for kind, limit in (
                (c.LIMIT_CGROUP, level.limit_bytes),
                (c.LIMIT_CGROUP_HIGH, level.high_bytes),
            ):
                if limit is not None:
                    found.append(Usage(kind, None, level.working_bytes, limit))
        host = read_host_usage(self._proc)
        if host is not None:
            found.append(Usage(c.LIMIT_HOST, None, *host))
        return found

    def _of_process(self, pid: int, size: ProcessSize, slot: int | None) -> list[Usage]:
        rlimits = self._rlimits.get(pid)
        if rlimits is None:
            rlimits = self._rlimits[pid] = read_rlimits(pid, self._proc)
        child = slot is not None and slot != MAIN_SLOT
        return [
            Usage(kind, pid, used, limit)
            for kind, used, limit in (
                (c.LIMIT_AS, size.virtual_bytes, rlimits.address_space_bytes),
                (c.LIMIT_DATA, size.data_bytes, rlimits.data_bytes),
                (c.LIMIT_MAX_MEMORY, size.rss_bytes, self._max_memory_bytes if child else None),
            )
            if used is not None and limit is not None
        ]
