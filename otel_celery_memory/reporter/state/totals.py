"""What runs of each task keep, by the counters of the processes that they ran in.

Two counts are compared, of which neither is enough. What sampled runs left behind (`LeftBehind`)
says who it was, but knows the samples only: a list that grows once in a hundred runs is in none of
them. By how much the heaps have grown (`HeapLevels`) misses nothing and names nobody: within some
minutes there are too few levels for a fit of growth to runs, which names tasks that only happened
to run then. So no task keeps more a run than the heaps have grown by while it ran. Where they have
grown by much more than the samples explain, somebody does it: of a task whose samples would explain
much of it, fewer of them are enough.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from otel_celery_memory.ipc.records import RunRetained, TaskFinished, WhyNotTraced
from otel_celery_memory.reporter.state.heap_levels import SPANS, HeapLevels
from otel_celery_memory.reporter.state.left_behind import (
    SAMPLES,
    UNKNOWN,
    WARMED_UP,
    Kept,
    LeftBehind,
    Withheld,
)

__all__ = ["Kept", "TaskTotal", "TaskTotals"]

_UNEXPLAINED_LEAST_BYTES = 32 << 10
_UNEXPLAINED_SHARE = 0.5
"""Of the growth: what the samples leave unexplained is told from noise by that."""


def _least_first(kept: Kept) -> tuple[float, float]:
    known = kept.bytes_per_run is not None and kept.runs >= SAMPLES
    return (kept.bytes_per_run or 0.0) if known else math.inf, kept.most_bytes


@dataclass
class TaskTotal:
    """Sums over runs of one task, in bytes."""

    runs: int = 0
    left_behind: LeftBehind = field(default_factory=LeftBehind)
    withheld: Withheld = field(default_factory=Withheld)
    peak_bytes: int | None = None
    """The highest RSS in a run, above RSS at its start; ``None`` if no run had a peak."""
    largest_bytes: int | None = None
    """By how much RSS has grown in the run in which it grew most."""
    has_warmed_up: bool = False
    """Whether it was sampled while the worker warmed up."""
    traced_runs: int = 0
    traced_bytes: int = 0
    not_traced: WhyNotTraced = WhyNotTraced.TRACED
    """By what the process said of it that spoke last."""


class TaskTotals:
    """Totals by task name; the caller bounds the names."""

    def __init__(self, warm_up_s: float = 0.0) -> None:
        """``warm_up_s``: in so many first seconds of a worker tasks fill their caches."""
        self._warm_up_ns = int(warm_up_s * 1e9)
        self._totals: dict[str, TaskTotal] = {}
        self._levels = HeapLevels()
        self._began_ns: int | None = None
        """When the first run ended."""
        self._unexplained: tuple[int, float, Counter[str]] = (-1, 0.0, Counter())
        """When it was worked out, as the number of a step; what of the growth the samples do not
        explain, in bytes; and the runs meanwhile."""

    def finished(self, task: str, record: TaskFinished) -> None:
        """Counts a run that had its process to itself."""
        total = self._total(task)
        total.runs += 1
        grown_bytes, peak_bytes = record.rss_delta_bytes, record.rss_peak_bytes
        if total.largest_bytes is None or grown_bytes > total.largest_bytes:
            total.largest_bytes = max(grown_bytes, 0)
        if peak_bytes is not None and (total.peak_bytes is None or peak_bytes > total.peak_bytes):
            total.peak_bytes = max(peak_bytes, 0)
        if record.traced_delta_bytes is not None:
            total.traced_runs += 1
            total.traced_bytes += record.traced_delta_bytes
        self._levels.ran(record.pid, record.time_ns, task)
        if self._began_ns is None:
            self._began_ns = record.time_ns

    def left_behind(self, task: str, record: RunRetained) -> RunRetained | None:
        """Adds what a sampled run left behind, by the process's counters.

        Returns what is to be told of it; ``None`` if it does not count.
        """
        if record.level_bytes is not None:
            self._levels.level(record.pid, record.time_ns, record.level_bytes)
        if self.warms_up(record.time_ns):
            record = record._replace(warm_up=1)
            self._total(task).has_warmed_up = True
        total = self._total(task)
        if not total.left_behind.add(record):
            return None
        return total.withheld.told(record, self._kept(task))

    def not_traced(self, task: str, reason: str) -> None:
        """Notes why runs of a task are not traced; an unknown reason is none."""
        known = reason in [each.value for each in WhyNotTraced]
        self._total(task).not_traced = WhyNotTraced(reason) if known else WhyNotTraced.TRACED

    def kept(self, task: str) -> Kept | None:
        """What a run of a task keeps by the counters; ``None`` while nothing is known of it.

        No site of the task may claim more. Without a name: the least that a run of any task keeps
        that runs now, and so the most that is kept by code that all of them run.
        """
        if task:
            return self._kept(task)
        names = self._levels.running()
        every = [kept for name in names if (kept := self._kept(name)) is not None]
        return min(every, key=_least_first, default=None)

    def _kept(self, task: str) -> Kept | None:
        total = self._totals.get(task)
        kept = None if total is None else total.left_behind.kept()
        growth = self._levels.growth(task)
        if kept is None and total is not None and total.has_warmed_up:
            return WARMED_UP
        if total is None or kept is None:
            return None if growth is None else UNKNOWN.within(growth)
        kept = kept._replace(largest_bytes=total.left_behind.largest_bytes())
        unexplained_bytes, runs = self._not_explained()
        if unexplained_bytes and runs[task]:
            likely_bytes = total.left_behind.likely_bytes()
            kept = kept.of_unexplained(unexplained_bytes / runs[task], likely_bytes)
        return kept if growth is None else kept.within(growth)

    def largest(
        self,
        count: int,
        with_found: Callable[[str, Kept | None], Kept | None] = lambda name, kept: kept,
    ) -> list[tuple[str, TaskTotal, Kept | None]]:
        """The tasks whose runs left most behind in all: totals, and what a run keeps, by the
        counters and ``with_found`` by what else is known of it."""
        found = [
            (name, total, with_found(name, self._kept(name)))
            for name, total in self._totals.items()
        ]

        def in_all(each: tuple[str, TaskTotal, Kept | None]) -> tuple[float, str]:
            name, total, kept = each
            return -((kept.bytes_per_run if kept else None) or 0.0) * total.runs, name

        return sorted(found, key=in_all)[:count]

    def clear(self) -> None:
        """Starts again at zero."""
        self._totals.clear()
        self._levels.clear()
        self._unexplained = (-1, 0.0, Counter())

    def warms_up(self, time_ns: int) -> bool:
        """Whether the worker's tasks fill their caches then. The first time is when they begin."""
        if self._began_ns is None:
            self._began_ns = time_ns
        return self.warm_up_left_s(time_ns) > 0

    def warm_up_left_s(self, time_ns: int) -> float:
        """For how many seconds they still do."""
        began_ns = time_ns if self._began_ns is None else self._began_ns
        if time_ns < began_ns:  # the clock was set back
            return 0.0
        return max(began_ns + self._warm_up_ns - time_ns, 0) / 1e9

    def _total(self, task: str) -> TaskTotal:
        total = self._totals.get(task)
        if total is None:
            total = self._totals[task] = TaskTotal()
        return total

    def _not_explained(self) -> tuple[float, Counter[str]]:
        """What the heaps have grown by lately, less what the samples say of the runs meanwhile."""
        known, left_bytes, runs = self._unexplained
        if known == self._levels.newest:
            return left_bytes, runs
        left_bytes, runs = self._left_unexplained(SPANS[0])
        # What goes on is a leak; a message that happened to be in memory, or warm-up, does not.
        before_bytes, _ = self._left_unexplained(SPANS[1])
        left_bytes = min(left_bytes, before_bytes * SPANS[0] / SPANS[1])
        self._unexplained = (self._levels.newest, left_bytes, runs)
        return left_bytes, runs

    def _left_unexplained(self, steps: int) -> tuple[float, Counter[str]]:
        growth_bytes, runs = self._levels.lately(steps)
        left_bytes = float(growth_bytes)
        for task, count in runs.items():
            total = self._totals.get(task)
            kept = total.left_behind.kept() if total else None
            left_bytes -= max((kept.bytes_per_run if kept else None) or 0.0, 0.0) * count
        if left_bytes <= max(growth_bytes * _UNEXPLAINED_SHARE, _UNEXPLAINED_LEAST_BYTES):
            left_bytes = 0.0
        return left_bytes, runs
