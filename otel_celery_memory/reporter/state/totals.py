"""Counts of one worker: its tasks, its processes, and the share that allocation tracing costs.

`Counts` feeds the metrics, `TaskTotals` the view for people; both since the reporter started.
`TracingShare` is tracing's share of the tasks' CPU time in the last ten minutes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry.metrics import Level

WINDOW_S = 600.0
_SPACING_S = 10.0


@dataclass
class TaskTotal:
    """Sums over runs of one task, in bytes."""

    runs: int = 0
    retained_runs: int = 0
    retained_bytes: int = 0
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

    def retained(self, task: str, retained_bytes: int) -> None:
        """Adds what a run retained, in bytes."""
        total = self._totals.get(task)
        if total is None:
            total = self._totals[task] = TaskTotal()
        total.retained_runs += 1
        total.retained_bytes += retained_bytes

    def largest(self, count: int) -> list[tuple[str, TaskTotal]]:
        """The tasks that retained most in all, with their totals."""
        totals = list(self._totals.items())
        return sorted(totals, key=lambda item: (-item[1].retained_bytes, item[0]))[:count]

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
