"""What may be spent on tracing so that no ten minutes cost more than their share. Pure.

Tasks may stop coming at any moment, and what was just spent then stands alone in its ten minutes.
So each spending is held against the task time since every earlier one: whatever comes, no ten
minutes that begin before one of them cost more than their budget, or than one slowed run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_S = 600.0
_STEP_S = 10.0


@dataclass
class _Step:
    """What was spent in a few seconds, and the task time and the clock at the last of it."""

    began_s: float
    at_s: float
    task_s: float
    spent_s: float


class Spending:
    """Spendings of the last ten minutes; task time is counted from wherever the caller likes."""

    def __init__(self, budget: float, floor_s: float) -> None:
        self._budget = budget
        self._floor_s = floor_s
        self._steps: deque[_Step] = deque()

    def spend(self, spent_s: float, task_s: float, now_s: float) -> None:
        """`spent_s` were spent when `task_s` of task time had passed in all."""
        last = self._steps[-1] if self._steps else None
        if last is None or now_s - last.began_s >= _STEP_S:
            self._steps.append(_Step(now_s, now_s, task_s, spent_s))
        else:
            last.at_s, last.task_s = now_s, task_s
            last.spent_s += spent_s
        self._forget(now_s)

    def left_s(self, task_s: float, now_s: float) -> float:
        """What may be spent now; negative where it was too much."""
        self._forget(now_s)
        left_s, spent_s = self._floor_s, 0.0
        for step in reversed(self._steps):
            spent_s += step.spent_s
            allowed_s = max(self._budget * (task_s - step.task_s), self._floor_s)
            left_s = min(left_s, allowed_s - spent_s)
        return left_s

    def _forget(self, now_s: float) -> None:
        while self._steps and now_s - self._steps[0].at_s > WINDOW_S:
            self._steps.popleft()
