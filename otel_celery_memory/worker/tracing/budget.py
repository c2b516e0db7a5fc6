"""What tracing has earned in one process and what it has spent, of which the old decays. Pure."""

from __future__ import annotations

import math

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.worker.tracing.spending import Spending

TIME_CONSTANT_S = 300.0
"""Decay of what was earned and spent; half of the ten minutes that the budget is promised for."""


class Funds:
    """Of one process, which begins with what the one before in its slot left."""

    def __init__(
        self, budget: float, least_s: float, lately: Spending, before: Balance, now_s: float
    ) -> None:
        """``budget`` is the share of task time that is earned; at least ``least_s`` is."""
        self._budget = budget
        self._least_s = least_s
        self._lately = lately
        self.task_s, self.spent_s = before.task_s, before.spent_s
        """CPU seconds of tasks, and of tracing, since the worker's first process in this slot."""
        self._recent_task_s, self._recent_spent_s = before.recent_task_s, before.recent_spent_s
        succeeds = before.task_s > 0
        self._settled_s = before.at_s if succeeds else now_s
        self._settled_task_s = self.task_s
        if succeeds:
            earned_from_s = self.task_s - self._recent_task_s
            lately.spend(self._recent_spent_s, earned_from_s, now_s)

    def spend(self, spent_s: float, now_s: float) -> None:
        """Tracing has cost so much."""
        self._settle(now_s)
        self.spent_s += spent_s
        self._recent_spent_s += spent_s
        self._lately.spend(spent_s, self.task_s, now_s)

    def left_s(self, share: float, now_s: float) -> float:
        """What may be spent now of a share of the budget."""
        self._settle(now_s)
        earned_s = max(self._budget * self._recent_task_s, self._least_s)
        lately_s = self._lately.left_s(self.task_s, now_s)
        return min(share * earned_s - self._recent_spent_s, lately_s)

    def balance(self, now_s: float, of_first_runs: tuple[float, float, float]) -> Balance:
        """What the next process in this slot begins with."""
        self._settle(now_s)
        return Balance(
            self.task_s,
            self.spent_s,
            self._recent_task_s,
            self._recent_spent_s,
            self._settled_s,
            *of_first_runs,
        )

    def _settle(self, now_s: float) -> None:
        elapsed_s = max(now_s - self._settled_s, 0.0)
        kept = math.exp(-elapsed_s / TIME_CONSTANT_S)
        # As if it had been earned half-way since.
        fresh_s = self.task_s - self._settled_task_s
        self._recent_task_s = self._recent_task_s * kept + fresh_s * math.sqrt(kept)
        self._recent_spent_s *= kept
        self._settled_s, self._settled_task_s = now_s, self.task_s
