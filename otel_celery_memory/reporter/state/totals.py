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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

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
_LIKELY_SHARE = 0.25
"""Of what is not explained: a task of which samples are likely to show so much is said to do it."""


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


@dataclass(frozen=True)
class _Unexplained:
    """What of the growth lately the samples do not explain, in bytes; runs by task meanwhile.

    ``likely``: what a run keeps of the tasks that are likely to do it, and ``rest_bytes`` what they
    leave to the others.
    """

    step: int = -1
    bytes: float = 0.0
    rest_bytes: float = 0.0
    runs: Counter[str] = field(default_factory=Counter)
    likely: Mapping[str, float] = field(default_factory=dict)


class TaskTotals:
    """Totals by task name; the caller bounds the names."""

    def __init__(self, warm_up_s: float = 0.0) -> None:
        """``warm_up_s``: in so many first seconds of a worker tasks fill their caches."""
        self._warm_up_ns = int(warm_up_s * 1e9)
        self._totals: dict[str, TaskTotal] = {}
        self._levels = HeapLevels()
        self._began_ns: int | None = None
        """When the first run ended."""
        self._unexplained = _Unexplained()

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
        unexplained = self._not_explained()
        likely_bytes = unexplained.likely.get(task, 0.0)
        left_bytes = unexplained.bytes if likely_bytes else unexplained.rest_bytes
        if left_bytes and unexplained.runs[task]:
            kept = kept.of_unexplained(left_bytes / unexplained.runs[task], likely_bytes)
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
        self._unexplained = _Unexplained()

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

    def _not_explained(self) -> _Unexplained:
        """What the heaps have grown by lately, less what the samples say of the runs meanwhile."""
        step = self._levels.newest
        if self._unexplained.step != step:
            now, before = self._left_unexplained(SPANS[0]), self._left_unexplained(SPANS[1])
            # What goes on is a leak; a message that happened to be in memory, or warm-up, does not.
            share = SPANS[0] / SPANS[1]
            self._unexplained = replace(
                now,
                step=step,
                bytes=min(now.bytes, before.bytes * share),
                rest_bytes=min(now.rest_bytes, before.rest_bytes * share),
            )
        return self._unexplained

    def _left_unexplained(self, steps: int) -> _Unexplained:
        growth_bytes, runs = self._levels.lately(steps)
        least_bytes = max(growth_bytes * _UNEXPLAINED_SHARE, _UNEXPLAINED_LEAST_BYTES)
        left_bytes = float(growth_bytes)
        unsure = {}
        for task, count in runs.items():
            total = self._totals.get(task)
            kept = total.left_behind.kept() if total else None
            kept_bytes = max((kept.bytes_per_run if kept else None) or 0.0, 0.0)
            left_bytes -= kept_bytes * count
            if total and not kept_bytes:
                unsure[task] = total.left_behind
        if left_bytes <= least_bytes:
            return _Unexplained(runs=runs)
        likely = {
            task: likely_bytes
            for task, left_behind in unsure.items()
            if (likely_bytes := left_behind.likely_bytes()) * runs[task]
            >= _LIKELY_SHARE * left_bytes
        }
        rest_bytes = left_bytes - sum(likely[task] * runs[task] for task in likely)
        return _Unexplained(
            bytes=left_bytes,
            rest_bytes=rest_bytes if rest_bytes > least_bytes else 0.0,
            runs=runs,
            likely=likely,
        )
