"""Watches the worker's processes from outside: their memory, and the moment each ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from threading import Lock

from otel_celery_memory.ipc.records import MAIN_SLOT, ProcessUp
from otel_celery_memory.probes.procfs import (
    PROC,
    ProcessReading,
    ProcessSize,
    SharedMemory,
    read_exit_code,
    read_process,
    read_shared,
    read_size,
)

PID_LIMIT = 2**22 + 1
"""The largest pid_max of Linux (proc_sys_kernel(5))."""
SHARED_INTERVAL_S = 15.0
"""Least time between two readings of USS and PSS. The kernel locks the process's memory map while
it adds them up, milliseconds for a large process: those are read more rarely."""
_SHARED_COST_FACTOR = 1_000
_AT_START_NS = 30_000_000_000
"""Later a process has copied what it had shared at its start."""


class ProcessWatcher:
    """The pids of one worker; their ends are noticed by a pidfd, or by polling."""

    def __init__(self, selector: BaseSelector, proc: Path = PROC) -> None:
        self._selector = selector
        self._proc = proc
        self._pidfds: dict[int, int | None] = {}

    def add(self, pid: int) -> bool:
        """Watches a process; returns ``False`` if it has ended already."""
        if pid in self._pidfds:
            return True
        if not 0 < pid < PID_LIMIT:
            return False  # of a damaged record: 0 and -1 mean groups of processes to kill()
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        except (AttributeError, OSError):
            # Not Linux, a kernel before 5.3, or no descriptor left: polled at each tick instead.
            self._pidfds[pid] = None
            return self._alive(pid)
        self._pidfds[pid] = fd
        self._selector.register(fd, EVENT_READ, pid)
        return True

    def drop(self, pid: int) -> None:
        """Stops watching a process."""
        fd = self._pidfds.pop(pid, None)
        if fd is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(fd)
            os.close(fd)

    def gone_without_pidfd(self) -> list[int]:
        """Watched pids without a pidfd that have ended."""
        return [pid for pid, fd in self._pidfds.items() if fd is None and not self._alive(pid)]

    def sizes(self) -> dict[int, ProcessSize]:
        """The size of every watched process that runs."""
        readings = {pid: read_size(pid, self._proc) for pid in self._pidfds}
        return {pid: size for pid, size in readings.items() if size is not None}

    def runs_another(self, than: int) -> bool:
        """Whether any watched process but this one has not ended yet."""
        return any(pid != than and self._alive(pid) for pid in self._pidfds)

    def is_running(self, pid: int) -> bool:
        """Whether a watched process has not ended yet."""
        return pid in self._pidfds and self._alive(pid)

    def exit_code(self, pid: int) -> int | None:
        """Exit code of a zombie; ``None`` if its parent has reaped it, or ``/proc`` hides it."""
        return read_exit_code(pid, self._proc)

    @staticmethod
    def _alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True


def copied_bytes(at_start: SharedMemory, now: SharedMemory) -> int | None:
    """Written memory that was shared at the start of a process and is its own now.

    No more than its own memory has grown by: what it shared may also be freed, or swapped out.
    """
    numbers = (at_start.shared_dirty_bytes, now.shared_dirty_bytes)
    unique = (at_start.unique_bytes, now.unique_bytes)
    if None in numbers or None in unique:
        return None
    not_shared_bytes = (numbers[0] or 0) - (numbers[1] or 0)
    return max(min(not_shared_bytes, (unique[1] or 0) - (unique[0] or 0)), 0)


class ProcessReadings:
    """Readings of the worker's processes by slot, taken when metrics are collected."""

    def __init__(
        self,
        pids: Callable[[], Mapping[str, int]],
        proc: Path = PROC,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pids = pids
        self._proc = proc
        self._clock_s = clock_s
        self._lock = Lock()
        self._fresh_until_s = 0.0
        self._readings: dict[str, ProcessReading] = {}
        self._shared: dict[int, tuple[float, SharedMemory]] = {}
        self._at_start: dict[int, SharedMemory] = {}

    def started(self, record: ProcessUp) -> None:
        """Reads what a child of the pool shares at its start, if this is its start.

        Not of one that another reporter has seen start, and not long after it.
        """
        fresh = time.time_ns() - record.time_ns < _AT_START_NS
        if record.rss_bytes and record.slot != MAIN_SLOT and fresh:
            self._at_start[record.pid] = read_shared(record.pid, self._proc)

    def read(self) -> Mapping[str, ProcessReading]:
        """Readings by slot; one serves all metrics of a collection."""
        with self._lock:
            now_s = self._clock_s()
            if now_s >= self._fresh_until_s:
                self._readings = self._take(now_s)
                self._fresh_until_s = self._clock_s() + 0.05
            return self._readings

    def _take(self, now_s: float) -> dict[str, ProcessReading]:
        pids = dict(self._pids())
        self._shared = {pid: entry for pid, entry in self._shared.items() if pid in pids.values()}
        for pid in set(self._at_start) - set(pids.values()):
            self._at_start.pop(pid, None)  # the loop adds others meanwhile
        readings = {}
        for slot, pid in pids.items():
            reading = read_process(pid, self._proc)
            if reading is None:
                continue
            shared = self._shared_of(pid, now_s)
            at_start = self._at_start.get(pid)
            readings[slot] = replace(
                reading,
                unique_bytes=shared.unique_bytes,
                unique_at_start_bytes=None if at_start is None else at_start.unique_bytes,
                copied_bytes=None if at_start is None else copied_bytes(at_start, shared),
                proportional_bytes=shared.proportional_bytes,
            )
        return readings

    def _shared_of(self, pid: int, now_s: float) -> SharedMemory:
        due_s, known = self._shared.get(pid, (now_s, None))
        if known is None or now_s >= due_s:
            began_s = self._clock_s()
            known = read_shared(pid, self._proc)
            cost_s = self._clock_s() - began_s
            pause_s = max(SHARED_INTERVAL_S, cost_s * _SHARED_COST_FACTOR)
            self._shared[pid] = (now_s + pause_s, known)
        return known
