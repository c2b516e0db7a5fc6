"""Counts of one worker: its tasks, its processes, and the share that allocation tracing costs.

`Counts` feeds the metrics, `TaskTotals` the view for people; both since the reporter started.
`TracingShare` is tracing's share of the tasks' CPU time in the last ten minutes.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import (
    ALIKE_LEAST_BYTES,
    UNLIKE_LEAST_BYTES,
    RunRetained,
)
from otel_celery_memory.telemetry.metrics import Level

WINDOW_S = 600.0
_SPACING_S = 10.0


_INTERVAL_NS = 10 * 10**9
_INTERVALS_MAX = 40
_LATELY_NS = 50 * 10**9
_SAMPLES = 10
_SAMPLES_LEAST = 3
_SURE_ERRORS = 2.5
"""Standard errors that a mean must differ from zero by."""
_SPREAD_LEAST_BYTES = 40.0
"""Samples differ by as much, whatever a few of them say: less than a block."""


class Kept(NamedTuple):
    """What a run of a task keeps by the counters."""

    bytes_per_run: float
    """Zero where the samples do not say that it is more or less than that."""
    most_bytes: float
    """It is no more than that, by all that the samples say."""
    samples: int
    least_bytes: float
    """What cannot be told from nothing."""

    @property
    def is_nothing(self) -> bool:
        """Whether so many samples kept nothing that it is known to be so."""
        return self.samples >= _SAMPLES and self.most_bytes <= 2 * self.least_bytes


@dataclass
class _Sizes:
    """Sums over sizes."""

    count: int = 0
    total_bytes: int = 0
    squares: int = 0
    largest_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Adds one."""
        self.count += 1
        self.total_bytes += size_bytes
        self.squares += size_bytes**2
        if abs(size_bytes) > abs(self.largest_bytes):
            self.largest_bytes = size_bytes

    def kept(self, least_bytes: float) -> Kept:
        """Their mean and its bounds. Of many sizes the largest one is left out: what happened once
        is no leak.
        """
        count, total_bytes, squares = self.count, self.total_bytes, self.squares
        if count >= _SAMPLES:
            count -= 1
            total_bytes -= self.largest_bytes
            squares -= self.largest_bytes**2
        mean_bytes = total_bytes / count
        variance = max(squares / count - mean_bytes**2, _SPREAD_LEAST_BYTES**2) / (count - 1)
        error_bytes = max(_SURE_ERRORS * math.sqrt(variance), least_bytes)
        sure_bytes = mean_bytes if abs(mean_bytes) > error_bytes else 0.0
        return Kept(sure_bytes, mean_bytes + error_bytes, self.count, least_bytes)


def _sum(parts: Iterable[_Sizes]) -> _Sizes:
    whole = _Sizes()
    for part in parts:
        whole.count += part.count
        whole.total_bytes += part.total_bytes
        whole.squares += part.squares
        whole.largest_bytes = max(whole.largest_bytes, part.largest_bytes, key=abs)
    return whole


@dataclass
class _Samples:
    """Sums over the sampled runs of one interval."""

    began_ns: int
    runs: int = 0
    blocks: int = 0
    open_files: int = 0
    threads: int = 0
    garbage_bytes: int = 0
    alike: _Sizes = field(default_factory=_Sizes)
    unlike: _Sizes = field(default_factory=_Sizes)


class LeftBehind:
    """What sampled runs of one task left behind lately.

    A mean is over the last minute, or the newest intervals that have `_SAMPLES` samples, so that a
    cache that has filled up is soon forgotten and a rare task is still known. What was known last
    stays until something newer of the task replaces it.
    """

    def __init__(self) -> None:
        self.sampled_ns = 0
        """When a run was sampled last."""
        self._intervals: deque[_Samples] = deque(maxlen=_INTERVALS_MAX)

    def add(self, record: RunRetained) -> bool:
        """Adds a sampled run, but for a first one; whether its heap counts.

        Samples before a run of another task count as long as there are no others.
        """
        if record.warm_up:
            return True
        self.sampled_ns = max(record.time_ns, self.sampled_ns)
        if not self._intervals or record.time_ns - self._intervals[-1].began_ns >= _INTERVAL_NS:
            self._intervals.append(_Samples(record.time_ns))
        now = self._intervals[-1]
        now.runs += 1
        now.blocks += record.blocks
        now.open_files += record.open_files or 0
        now.threads += record.threads or 0
        now.garbage_bytes += record.garbage_bytes or 0
        if record.heap_bytes is not None:
            (now.alike if record.alike else now.unlike).add(record.heap_bytes)
        return bool(record.alike) or self._alike().count < _SAMPLES_LEAST

    def kept(self) -> Kept | None:
        """Net bytes a run; ``None`` while too few runs were sampled."""
        alike = self._alike()
        if alike.count >= _SAMPLES_LEAST:
            return alike.kept(ALIKE_LEAST_BYTES)
        every = _sum((alike, *(each.unlike for each in self._lately())))
        return every.kept(UNLIKE_LEAST_BYTES) if every.count >= _SAMPLES_LEAST else None

    def heap_bytes_per_run(self) -> float | None:
        """As `kept`, the bytes alone."""
        kept = self.kept()
        return None if kept is None else kept.bytes_per_run

    def _alike(self) -> _Sizes:
        return _sum(each.alike for each in self._lately())

    def per_run(self, field: str) -> float | None:
        """Net of another counter a run: ``blocks``, ``open_files``, ``threads`` and so on."""
        lately = self._lately()
        runs = sum(each.runs for each in lately)
        return sum(getattr(each, field) for each in lately) / runs if runs else None

    @property
    def samples(self) -> int:
        """How many runs the means are of."""
        return sum(each.runs for each in self._lately())

    def _lately(self) -> list[_Samples]:
        lately: list[_Samples] = []
        runs = 0
        for each in reversed(self._intervals):
            if runs >= _SAMPLES and lately[0].began_ns - each.began_ns > _LATELY_NS:
                break
            lately.append(each)
            runs += each.runs
        return lately


@dataclass
class TaskTotal:
    """Sums over runs of one task, in bytes."""

    runs: int = 0
    left_behind: LeftBehind = field(default_factory=LeftBehind)
    traced_runs: int = 0
    traced_bytes: int = 0


class TaskTotals:
    """Totals by task name; the caller bounds the names."""

    def __init__(self) -> None:
        self._totals: dict[str, TaskTotal] = {}

    def finished(self, task: str, traced_bytes: int | None) -> None:
        """Counts a run that had its process to itself."""
        total = self._totals.get(task)
        if total is None:
            total = self._totals[task] = TaskTotal()
        total.runs += 1
        if traced_bytes is not None:
            total.traced_runs += 1
            total.traced_bytes += traced_bytes

    def left_behind(self, task: str, record: RunRetained) -> bool:
        """Adds what a sampled run left behind, by the process's counters; whether it counts."""
        total = self._totals.get(task)
        if total is None:
            total = self._totals[task] = TaskTotal()
        return total.left_behind.add(record)

    def kept(self, task: str) -> Kept | None:
        """What a run of a task keeps by the counters; ``None`` while too few runs were sampled.

        No site of the task may claim more.
        """
        total = self._totals.get(task)
        return None if total is None else total.left_behind.kept()

    def largest(self, count: int) -> list[tuple[str, TaskTotal]]:
        """The tasks whose runs left most behind in all, with their totals."""
        totals = list(self._totals.items())

        def most_first(item: tuple[str, TaskTotal]) -> tuple[float, str]:
            name, total = item
            return -(total.left_behind.heap_bytes_per_run() or 0) * total.runs, name

        return sorted(totals, key=most_first)[:count]

    def clear(self) -> None:
        """Starts again at zero."""
        self._totals.clear()


class Counts:
    """Counts by attributes; written by one thread, copied by the SDK's export thread.

    ``list()`` of a dictionary's items is atomic to other threads, so no lock is needed.
    """

    def __init__(self) -> None:
        self.measured: Counter[tuple[str, str, bool]] = Counter()
        """Runs, by task, state, and whether they had their process to themselves."""
        self.exits: Counter[tuple[str, str]] = Counter()
        """Ends of processes, by slot and reason."""
        self.aborted = 0
        """Runs whose tracing was stopped before their end."""

    def levels(self) -> dict[c.Metric, Callable[[], list[Level]]]:
        """The callback of each metric."""
        return {
            c.MEASURED: self._measured_levels,
            c.PROCESS_EXITS: self._exit_levels,
            # From zero on: a count that begins at one shows no increase.
            c.TRACING_ABORTED: lambda: [(self.aborted, {})],
        }

    def clear(self) -> None:
        """Starts again at zero."""
        self.measured.clear()
        self.exits.clear()
        self.aborted = 0

    def _measured_levels(self) -> list[Level]:
        return [
            (count, {c.TASK_NAME: task, c.TASK_STATE: state, c.EXCLUSIVE: exclusive})
            for (task, state, exclusive), count in list(self.measured.items())
        ]

    def _exit_levels(self) -> list[Level]:
        return [
            (count, {c.SLOT: slot, c.EXIT_REASON: reason})
            for (slot, reason), count in list(self.exits.items())
        ]


class TracingShare:
    """Change of the totals of task time and tracing time over the last ten minutes."""

    def __init__(
        self,
        totals: Callable[[], tuple[float, float]],
        clock_s: Callable[[], float] = time.monotonic,
        *,
        from_zero: bool = False,
    ) -> None:
        """``from_zero`` counts what the totals are now: all of it is recent.

        Use it where the worker has just started: tasks run in the second that a reporter needs.
        """
        self._totals = totals
        self._clock_s = clock_s
        # Replaced and never changed: the export thread reads it too.
        self._seen: tuple[tuple[float, float, float], ...] = (
            (clock_s(), *((0.0, 0.0) if from_zero else totals())),
        )

    def share(self) -> float | None:
        """Seconds of tracing per second of task time; ``None`` if no task ran."""
        task_s, spent_s = self.seconds()
        return spent_s / task_s if task_s else None

    def seconds(self) -> tuple[float, float]:
        """Task time and tracing time in the window, in seconds; both 0 if no task ran."""
        now_s = self._clock_s()
        task_s, spent_s = self._totals()
        seen = self._seen
        while len(seen) > 1 and now_s - seen[1][0] >= WINDOW_S:
            seen = seen[1:]
        _, task_before_s, spent_before_s = seen[0]
        if now_s - seen[-1][0] >= _SPACING_S:
            seen = (*seen, (now_s, task_s, spent_s))
        self._seen = seen
        if task_s <= task_before_s:
            return 0.0, 0.0
        return task_s - task_before_s, max(spent_s - spent_before_s, 0.0)
