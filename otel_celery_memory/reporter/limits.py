"""Watches the memory limits of the worker: usage, episodes of pressure, time of the next check.

A container that is killed as a whole exports nothing afterwards. So processes and their tasks are
emitted when 90 % of the nearest limit is used, and exported at once by a thread: a flush may hang,
and the loop that reads the rings must not wait for it. The nearer the limit, the more often it is
checked, at a cost of at most a fiftieth of one core. That is CPU time: on a machine that is short
of it, or of memory, a check takes long, and that is when a process is about to be killed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
from otel_celery_memory.reporter.state.worker_state import WorkerState

PRESSURE_FROM, RELIEF_BELOW = 0.9, 0.8
"""Shares of a limit: an episode of pressure begins at the first and ends below the second."""
CHECK_S, SHORTEST_CHECK_S = 0.5, 0.05
_QUICKER_FROM = 0.7
_COST_FACTOR = 50
"""A check may use at most a fiftieth of the CPU time of one core."""
_CHECKS_TO_THE_LIMIT = 4
_WAITED_MOST_S = 1.0
"""A check that waited for long is followed after as long, but no later than that."""
RECYCLING_PAUSE_S = 60.0
"""Least time between two episodes of ``max_memory_per_child``: recycling a child there is normal
and may happen many times an hour."""

_Episode = tuple[str, int | None]
"""A kind of limit, and the pid of the process that has it; ``None`` for the whole worker."""
_FRESH_FOR_S = 15.0
"""How long limits of a process and the path of a cgroup are kept: they rarely change."""
SAVE_S = 1.0
"""Time between two saves of the last state: each renames a file."""


@dataclass(frozen=True)
class Usage:
    """Used part of one limit; ``pid`` of the process that has it, ``None`` for the worker."""

    kind: str
    pid: int | None
    used_bytes: int
    limit_bytes: int

    @property
    def share(self) -> float:
        """Used share: 1 at the limit, and for a limit of 0."""
        return self.used_bytes / self.limit_bytes if self.limit_bytes > 0 else 1.0


class PressureEpisodes:
    """Decides from usages when an episode of pressure begins, and when to check again."""

    def __init__(self) -> None:
        self._pressed: dict[_Episode, float] = {}
        self.relieved: list[tuple[str, float]] = []
        """Kinds of limit whose episode was over at the last reading, and how long it was, in s."""
        self._before: dict[tuple[str, int | None, int], tuple[float, int]] = {}

    def new_episodes(self, usages: Sequence[Usage], now_s: float) -> list[Usage]:
        """Usages that begin an episode, the fullest first; ``now_s`` is monotonic."""
        nearest: dict[_Episode, Usage] = {}
        for usage in usages:
            episode = _episode_of(usage)
            known = nearest.get(episode)
            if known is None or usage.share > known.share:
                nearest[episode] = usage
        self.relieved = []
        for episode, begun_s in list(self._pressed.items()):
            gone = episode not in nearest
            over = gone or nearest[episode].share < RELIEF_BELOW
            if over and now_s - begun_s >= _pause_s(episode):
                del self._pressed[episode]
                if not gone:  # the end of a process is told as such
                    self.relieved.append((episode[0], now_s - begun_s))
        begun = {
            episode: usage
            for episode, usage in nearest.items()
            if usage.share >= PRESSURE_FROM and episode not in self._pressed
        }
        self._pressed.update(dict.fromkeys(begun, now_s))
        return sorted(begun.values(), key=lambda usage: -usage.share)

    def next_check_s(self, usages: Sequence[Usage], now_s: float, cost_s: float) -> float:
        """Seconds until the next check, from the fullest limit and how fast it fills.

        ``cost_s`` is the CPU time of the last check.
        """
        wanted_s = CHECK_S
        before, self._before = self._before, {}
        for usage in usages:
            key = (usage.kind, usage.pid, usage.limit_bytes)
            self._before[key] = (now_s, usage.used_bytes)
            left = max(1 - usage.share, 0.0)
            wanted_s = min(wanted_s, CHECK_S * left / (1 - _QUICKER_FROM))
            then_s, then_bytes = before.get(key, (now_s, usage.used_bytes))
            grown_bytes = usage.used_bytes - then_bytes
            if grown_bytes > 0 and now_s > then_s:
                left_s = (usage.limit_bytes - usage.used_bytes) * (now_s - then_s) / grown_bytes
                wanted_s = min(wanted_s, left_s / _CHECKS_TO_THE_LIMIT)
        return min(max(wanted_s, SHORTEST_CHECK_S, cost_s * _COST_FACTOR), CHECK_S * _COST_FACTOR)


def _episode_of(usage: Usage) -> _Episode:
    """Nested cgroups share an episode; so do all children, which are recycled anyway."""
    return usage.kind, None if usage.kind == c.LIMIT_MAX_MEMORY else usage.pid


def _pause_s(episode: _Episode) -> float:
    return RECYCLING_PAUSE_S if episode[0] == c.LIMIT_MAX_MEMORY else 0.0


class LimitUsage:
    """Reads the usage of all limits; caches what rarely changes."""

    def __init__(
        self,
        pid: int,
        max_memory_per_child_bytes: int | None,
        proc: Path = PROC,
        mount: Path = MOUNT,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``pid`` is a process in the worker's cgroup that does not end before this: our own."""
        self._pid = pid
        self._max_memory_bytes = max_memory_per_child_bytes
        self._proc = proc
        self._mount = mount
        self._clock_s = clock_s
        self._cgroup: Cgroup | None = None
        self._rlimits: dict[int, Rlimits] = {}
        self._fresh_until_s = float("-inf")
        self.latest: list[Usage] = []
        """The usages that were read last."""

    def usages(
        self, sizes: Mapping[int, ProcessSize], slots: Mapping[int, int | None]
    ) -> list[Usage]:
        """Usages of the worker's limits and of those of each process in ``sizes``."""
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


def log_of_limit(kind: str, what: str = "pressure") -> logging.Logger:
    """The logger of one kind of limit: repetitions are left out of the log by logger."""
    return logging.getLogger(f"{__name__}.{what}.{kind}")


class PressureEmitter(Protocol):
    """What the watcher needs of the emitter."""

    state: WorkerState

    def emit_pressure(self, usage: Usage, now_ns: int) -> None:
        """Emits that a limit is near."""


class LimitWatcher:
    """Reads the size of each process into the state, and emits pressure."""

    def __init__(
        self,
        sizes: Callable[[], Mapping[int, ProcessSize]],
        limit_usage: LimitUsage,
        emitter: PressureEmitter,
        send_now: Callable[[], None],
        save: Callable[[], None],
        clock_s: Callable[[], float] = time.monotonic,
        cpu_clock_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """``send_now`` starts an export and does not wait; ``save`` saves the last state.

        ``cpu_clock_s`` is the CPU time that the calling thread has used.
        """
        self._sizes = sizes
        self._limit_usage = limit_usage
        self._emitter = emitter
        self._send_now = send_now
        self._save = save
        self._clock_s = clock_s
        self._cpu_clock_s = cpu_clock_s
        self._episodes = PressureEpisodes()
        self.due_s = self._save_due_s = clock_s()
        self.usages: list[Usage] = []

    def check(self) -> None:
        """Checks all limits once; sets `due_s`, the time of the next check."""
        began_s, used_s = self._clock_s(), self._cpu_clock_s()
        self.due_s = began_s + CHECK_S
        processes = self._emitter.state.processes
        try:
            sizes = self._sizes()
            for pid, size in sizes.items():
                if pid in processes:
                    processes[pid].record_rss(size.rss_bytes)
            slots = {pid: process.slot for pid, process in processes.items()}
            self.usages = self._limit_usage.usages(sizes, slots)
            new = self._episodes.new_episodes(self.usages, began_s)
            for kind, lasted_s in self._episodes.relieved:
                log_of_limit(kind, "relief").warning(
                    "otel_celery_memory: less than %.0f %% of %s are used again, after %.0f s",
                    RELIEF_BELOW * 100,
                    kind,
                    lasted_s,
                )
            for usage in new:
                self._emitter.emit_pressure(usage, time.time_ns())
            if new:
                self._send_now()
            if new or began_s >= self._save_due_s:
                self._save_due_s = began_s + SAVE_S
                self._save()
        finally:
            now_s, cost_s = self._clock_s(), self._cpu_clock_s() - used_s
            pause_s = self._episodes.next_check_s(self.usages, now_s, cost_s)
            # The loop has other work, too.
            self.due_s = now_s + max(pause_s, min(now_s - began_s, _WAITED_MOST_S))
