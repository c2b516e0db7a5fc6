"""The capture that a person asked for, as one process takes part in it: which runs are traced."""

from __future__ import annotations

from otel_celery_memory.orders import Orders
from otel_celery_memory.worker.plan import Plan


class CapturedRuns:
    """One capture at a time, each once. Times are seconds; ``now_s`` is monotonic."""

    def __init__(self) -> None:
        self.ordered: Orders | None = None
        """The capture that is being taken."""
        self._runs_left = 0
        self._last = 0

    def order(self, orders: Orders, now_s: float) -> bool:
        """Take what is ordered, if that is news; whether any of it is still wanted."""
        if not orders.capture or now_s >= orders.until_s:
            return False
        if orders.capture != self._last:
            self._last = orders.capture
            self.ordered, self._runs_left = orders, orders.runs
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
