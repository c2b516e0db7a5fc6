"""What runs of each task retained and held, since the reporter started: for people who ask."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TaskTotal:
    """Sums over runs of one task, in bytes."""

    runs: int = 0
    retained_runs: int = 0
    retained_bytes: int = 0
    traced_runs: int = 0
    traced_bytes: int = 0


class TaskTotals:
    """Totals by task name; names are bounded by whoever gives them."""

    def __init__(self) -> None:
        self._totals: dict[str, TaskTotal] = {}

    def finished(self, task: str, traced_bytes: int | None) -> None:
        """A run ended that had its process to itself."""
        total = self._totals.get(task)
        if total is None:
            total = self._totals[task] = TaskTotal()
        total.runs += 1
        if traced_bytes is not None:
            total.traced_runs += 1
            total.traced_bytes += traced_bytes

    def retained(self, task: str, retained_bytes: int) -> None:
        """A run was followed by another, or by its process's end."""
        total = self._totals.get(task)
        if total is None:
            total = self._totals[task] = TaskTotal()
        total.retained_runs += 1
        total.retained_bytes += retained_bytes

    def largest(self, count: int) -> list[tuple[str, TaskTotal]]:
        """The tasks that retained most in all, with what they did."""
        totals = list(self._totals.items())
        return sorted(totals, key=lambda item: (-item[1].retained_bytes, item[0]))[:count]

    def clear(self) -> None:
        """Begin anew."""
        self._totals.clear()
