"""What tracing has earned and spent, and what runs of each task name cost. Pure.

What one process earned and spent decays with time. Tasks may stop coming at any moment, and what
was just spent then has ten minutes for itself. So each spending is compared with the task time
since every earlier one: no ten minutes that begin before one of them cost more than their budget,
or than one slowed run.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from otel_celery_memory.ipc.commands import Balance

SLOWDOWN_AT_FIRST = 6.0
NAMES_MAX = 200
_FORGET_S = 3_600.0
_OTHER = "_other"
WINDOW_S = 600.0
_STEP_S = 10.0
TIME_CONSTANT_S = 300.0
"""Decay of what was earned and spent: half of the ten minutes in which the budget holds."""


class TaskCosts:
    """What runs of one task name cost; times are means that follow slowly."""

    __slots__ = (
        "cpu_s",
        "due_s",
        "near_limit",
        "runs",
        "seen_s",
        "slowdown",
        "slowdown_before",
        "traced",
        "wall_longest_s",
        "wall_s",
    )

    def __init__(self, now_s: float) -> None:
        self.runs = 0
        self.cpu_s = 0.0
        self.wall_s = 0.0
        self.wall_longest_s = 0.0
        self.slowdown = SLOWDOWN_AT_FIRST
        self.slowdown_before = SLOWDOWN_AT_FIRST
        """That of the last traced run alone."""
        self.due_s = 0.0
        """On the clock of the waits: not to be traced before, as it was too slow last time."""
        self.traced = 0
        """How many of its runs were traced, stopped ones among them."""
        self.near_limit = False
        """Whether the last run that was asked for could have reached its time limit if traced."""
        self.seen_s = now_s

    def ran(self, cpu_s: float, wall_s: float, now_s: float) -> None:
        """A run that was not traced took `cpu_s` of CPU time and `wall_s` in all."""
        self.runs += 1
        if self.runs < 20:
            # The first run may have imported much: the second replaces it.
            weight = 1 / max(self.runs - 1, 1)
        elif self.runs & 7:
            return  # one in eight is enough
        else:
            weight = 0.05
        self.cpu_s += (cpu_s - self.cpu_s) * weight
        self.wall_s += (wall_s - self.wall_s) * weight
        longest_s = self.wall_longest_s * 0.99
        self.wall_longest_s = wall_s if wall_s > longest_s else longest_s
        self.seen_s = now_s

    def was_traced(self, cpu_s: float, now_s: float, *, aborted: bool) -> None:
        """A run took `cpu_s` under tracing; ``aborted``: until it was stopped."""
        self.seen_s = now_s
        self.traced += 1
        if not self.runs:
            return
        slowdown = max(cpu_s / max(self.cpu_s, 1e-6), 1.0)
        if aborted:
            # It would have gone on, nobody knows how long.
            self.slowdown = max(1.5 * slowdown, self.slowdown)
            return
        # A run that opens a connection takes longer than others, traced or not. Of runs that
        # overlap, one is charged with what all of them did meanwhile. So one run alone is not
        # taken for slow: two in a row are.
        most = max(self.slowdown_before, SLOWDOWN_AT_FIRST)
        self.slowdown_before = slowdown
        # What was assumed at first says nothing.
        weight = 1.0 if self.traced <= 2 else 0.3
        self.slowdown += (min(slowdown, most) - self.slowdown) * weight

    def forget_traced(self) -> None:
        """How its runs were traced says nothing of how they will be."""
        self.traced, self.due_s = 0, 0.0
        self.slowdown = self.slowdown_before = SLOWDOWN_AT_FIRST

    @property
    def added_s(self) -> float:
        """What tracing adds to a run, as far as is known."""
        return self.cpu_s * (self.slowdown - 1.0)


class KnownCosts:
    """Costs by task name, of at most `NAMES_MAX`: later names share one entry."""

    def __init__(self) -> None:
        self._costs: dict[str, TaskCosts] = {}
        self._full_until_s = 0.0

    def of(self, task: str, now_s: float) -> TaskCosts:
        """The costs of this name; a new name gets an entry."""
        costs = self._costs.get(task)
        return self._add(task, now_s) if costs is None else costs

    def least_traced(self, then_s: float) -> int:
        """How often the name was traced that was traced least, of those that ran since then."""
        return min((c.traced for _, c in self.items() if c.seen_s >= then_s), default=0)

    def items(self) -> list[tuple[str, TaskCosts]]:
        """Names and their costs; a copy, as a thread may add names meanwhile."""
        return list(self._costs.items())

    def runs(self) -> tuple[int, float]:
        """How many runs of all names were not traced, and their mean CPU time in seconds."""
        known = [costs for _, costs in self.items()]
        runs = sum(costs.runs for costs in known)
        return runs, sum(costs.runs * costs.cpu_s for costs in known) / runs if runs else 0.0

    def _add(self, task: str, now_s: float) -> TaskCosts:
        if len(self._costs) >= NAMES_MAX and not self._makes_room(now_s):
            task = _OTHER
        # Another thread may add or remove it meanwhile.
        return self._costs.setdefault(task, TaskCosts(now_s))

    def _makes_room(self, now_s: float) -> bool:
        """Remove the name that has not run for longest, if that is an hour ago."""
        if now_s < self._full_until_s:
            return False
        # The entry that later names share is kept.
        known = [(costs.seen_s, name) for name, costs in self.items()]
        seen_s, oldest = min(found for found in known if found[1] != _OTHER)
        self._full_until_s = seen_s + _FORGET_S
        if now_s < self._full_until_s and _OTHER in self._costs:
            return False
        self._costs.pop(oldest, None)
        return now_s >= self._full_until_s


@dataclass
class _Step:
    """What was spent in a few seconds; task time and clock at the last spending."""

    began_s: float
    at_s: float
    task_s: float
    spent_s: float


class RollingWindow:
    """What was spent in the last ten minutes; task time may be counted from any moment."""

    def __init__(self, budget: float, floor_s: float) -> None:
        self._budget = budget
        self._floor_s = floor_s
        self._steps: deque[_Step] = deque()

    def spend(self, spent_s: float, task_s: float, now_s: float) -> None:
        """Add `spent_s`, spent when `task_s` of task time had passed in all."""
        last = self._steps[-1] if self._steps else None
        if last is None or now_s - last.began_s >= _STEP_S:
            self._steps.append(_Step(now_s, now_s, task_s, spent_s))
        else:
            last.at_s, last.task_s = now_s, task_s
            last.spent_s += spent_s
        self._forget(now_s)

    def left_s(self, task_s: float, now_s: float) -> float:
        """What may be spent now, in seconds; negative where too much was spent."""
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


class TokenBucket:
    """What one process may spend; it starts with the balance of its predecessor in the slot."""

    def __init__(
        self, budget: float, least_s: float, lately: RollingWindow, before: Balance, now_s: float
    ) -> None:
        """``budget``: share of task time that is earned, but at least ``least_s`` in all."""
        self._budget = budget
        self._least_s = least_s
        self._lately = lately
        self.task_s, self.spent_s = before.task_s, before.spent_s
        """CPU seconds of tasks, and of tracing and of samples of the counters, since the first
        process in this slot."""
        self.granted_s = 0.0
        """Seconds that earn as much as those of tasks: of a heap that grows."""
        self._recent_task_s, self._recent_spent_s = before.recent_task_s, before.recent_spent_s
        succeeds = before.task_s > 0
        self._decayed_s = before.at_s if succeeds else now_s
        self._decayed_earning_s = self.task_s
        if succeeds:
            earned_from_s = self.task_s - self._recent_task_s
            lately.spend(self._recent_spent_s, earned_from_s, now_s)

    def spend(self, spent_s: float, now_s: float) -> None:
        """Tracing has cost `spent_s`."""
        self._decay(now_s)
        self.spent_s += spent_s
        self._recent_spent_s += spent_s
        self._lately.spend(spent_s, self._earning_s, now_s)

    def left_s(self, share: float, now_s: float) -> float:
        """What may be spent now of a share of the budget, in seconds."""
        self._decay(now_s)
        earned_s = max(self._budget * self._recent_task_s, self._least_s)
        lately_s = self._lately.left_s(self._earning_s, now_s)
        return min(share * earned_s - self._recent_spent_s, lately_s)

    def balance(self, now_s: float, runs: float, run_s: float, lived_s: float) -> Balance:
        """What the next process in this slot starts with."""
        self._decay(now_s)
        return Balance(
            self.task_s,
            self.spent_s,
            self._recent_task_s,
            self._recent_spent_s,
            self._decayed_s,
            runs,
            run_s,
            lived_s,
        )

    def _decay(self, now_s: float) -> None:
        elapsed_s = max(now_s - self._decayed_s, 0.0)
        kept = math.exp(-elapsed_s / TIME_CONSTANT_S)
        # As if all of it had been earned half-way since then.
        fresh_s = self._earning_s - self._decayed_earning_s
        self._recent_task_s = self._recent_task_s * kept + fresh_s * math.sqrt(kept)
        self._recent_spent_s *= kept
        self._decayed_s, self._decayed_earning_s = now_s, self._earning_s

    @property
    def _earning_s(self) -> float:
        return self.task_s + self.granted_s
