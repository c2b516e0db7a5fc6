"""A capture that is being taken: of which runs of this process, and how many are left."""

from __future__ import annotations

from typing import Protocol

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.worker.tracing.sampler import Plan


class Tally(Protocol):
    """Counts what a slot has sent of a capture, beyond the life of a process."""

    def captured(self, slot: int, capture: int) -> int:
        """How many windows of this capture the slot has sent."""

    def count_captured(self, slot: int, capture: int) -> None:
        """Count one more window."""


class CapturedRuns:
    """The capture that is being taken, if any. Times are in seconds; ``now_s`` is monotonic.

    A capture has so many runs of a slot, not of a process: a child that ends before them leaves
    the rest to its successor.
    """

    def __init__(self, slot: int, tally: Tally) -> None:
        self.ordered: Commands | None = None
        """The capture that is being taken."""
        self._slot = slot
        self._tally = tally
        self._runs_left = 0
        self._last = 0

    def order(self, orders: Commands, now_s: float) -> bool:
        """Begin the capture that is ordered, if it is a new one; whether runs of it are left."""
        if not orders.capture or now_s >= orders.until_s:
            return False
        if orders.capture != self._last:
            self._last = orders.capture
            self.ordered = orders
            self._runs_left = orders.runs - self._tally.captured(self._slot, orders.capture)
            if orders.runs and self._runs_left <= 0:
                self.ordered = None
        return self.ordered is not None

    def plan(self, name: str, now_s: float) -> Plan | None:
        """The plan of this task's run that starts now; ends a capture that is complete."""
        orders = self.ordered
        if orders is None:
            return None
        if now_s >= orders.until_s or (orders.runs and self._runs_left <= 0):
            self.ordered = None
            return None
        if orders.task not in ("", name):
            return None
        self._runs_left -= 1
        return Plan(orders.allowance_s)

    def sent(self, orders: Commands | None) -> None:
        """A window was sent, of this capture or of none: a successor does not repeat the run."""
        if orders is not None:
            self._tally.count_captured(self._slot, orders.capture)
