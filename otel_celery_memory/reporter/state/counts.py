"""What is counted of one worker's tasks and processes, as the metrics ask for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry.metrics import Level


class Counts:
    """Written by one thread, copied by the SDK's export thread.

    ``list()`` of a dictionary's items is one step to other threads, so no lock is needed.
    """

    def __init__(self) -> None:
        self.measured: Counter[tuple[str, str, bool]] = Counter()
        """Runs, by task, state, and whether they had their process to themselves."""
        self.exits: Counter[tuple[str, str]] = Counter()
        """Ends of processes, by slot and reason."""
        self.aborted: Counter[str] = Counter()
        """Runs whose tracing was stopped before their end, by task."""

    def levels(self) -> dict[c.Metric, Callable[[], list[Level]]]:
        """What each metric is observed by."""
        return {
            c.MEASURED: self._measured_levels,
            c.PROCESS_EXITS: self._exit_levels,
            c.TRACING_ABORTED: self._aborted_levels,
        }

    def all_aborted(self) -> int:
        """Of all tasks."""
        return sum(list(self.aborted.values()))

    def clear(self) -> None:
        """Begin anew."""
        self.measured.clear()
        self.exits.clear()
        self.aborted.clear()

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

    def _aborted_levels(self) -> list[Level]:
        return [(count, {c.TASK_NAME: task}) for task, count in list(self.aborted.items()) if count]
