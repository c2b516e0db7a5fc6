"""The capture that a person asked for, as one process takes part in it: which runs are traced."""

from __future__ import annotations

from typing import Protocol

from otel_celery_memory.ipc.commands import Orders
from otel_celery_memory.worker.tracing.plan import Plan


class Tally(Protocol):
    """Keeps beyond the life of a process what its slot has sent of a capture."""

    def captured(self, slot: int, capture: int) -> int:
        """How many windows of this capture the slot has sent."""

    def count_captured(self, slot: int, capture: int) -> None:
        """One more."""


class CapturedRuns:
    """One capture at a time, each once. Times are seconds; ``now_s`` is monotonic.

    The runs are the slot's, not the process's: where children do not live that long, the next one
    goes on where the one before has got to.
    """

    def __init__(self, slot: int, tally: Tally) -> None:
        self.ordered: Orders | None = None
        """The capture that is being taken."""
        self._slot = slot
        self._tally = tally
        self._runs_left = 0
        self._last = 0

    def order(self, orders: Orders, now_s: float) -> bool:
        """Take what is ordered, if that is news; whether any of it is still wanted."""
        if not orders.capture or now_s >= orders.until_s:
            return False
        if orders.capture != self._last:
            self._last = orders.capture
            self.ordered = orders
            self._runs_left = orders.runs - self._tally.captured(self._slot, orders.capture)
            if orders.runs and self._runs_left <= 0:
                self.ordered = None
        return self.ordered is not None

    def plan(self, now_s: float) -> Plan | None:
        """The plan of the run that starts now; ends a capture that has all it wanted."""
        orders = self.ordered
        if orders is None:
            return None
        if now_s >= orders.until_s or (orders.runs and self._runs_left <= 0):
            self.ordered = None
            return None
        self._runs_left -= 1
        return Plan(orders.allowance_s)

    def sent(self, orders: Orders | None) -> None:
        """A window was sent, of this capture or of none: a successor need not trace that run."""
        if orders is not None:
            self._tally.count_captured(self._slot, orders.capture)
