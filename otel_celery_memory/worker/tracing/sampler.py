"""Which runs of which tasks are traced, so that tracing costs no more than its budget. Pure.

Tracing slows allocation-heavy code 3 to 40 times. So the sampler learns for each task name what its
runs cost untraced and traced, in CPU time, and spends by three rules:

- *The process*: what was spent on tracing, decaying over ten minutes, stays under
  ``overhead_budget`` of the task time, which decays alike. No ten minutes cost more than their
  budget (`RollingWindow`).
- *The name*: each name that runs has an equal share of 85 % of that. A name that runs often cannot
  use the others' share, and a rare one saves up. Waits are random, so that no rhythm of the tasks
  keeps one of them from being traced.
- *The run*: a run that would take longer than ``max_added_latency`` is not traced whole, but in a
  slice that begins at a random moment.

A process that hardly works counts as busy for `IDLE_SHARE` of the time. Otherwise a small task that
runs once an hour would never be traced.

Where children live for one run or a few, many names have only a first run there, of which nothing
is known. Each process draws at random what a first run may cost: sometimes so little that small
runs are traced often, sometimes as much as any run may cost. It waits for that amount since its
predecessor was last asked, so that the short lives of processes add up. The next first run may cost
at least what the last traced one did, so that runs of one kind are soon traced whole.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.worker.tracing.budget import (
    SLOWDOWN_AT_FIRST,
    TIME_CONSTANT_S,
    KnownCosts,
    RollingWindow,
    TokenBucket,
)

LEAST_COST_S = 0.003
IDLE_SHARE = 0.01
SPENT_SHARE = 0.9
"""Of the budget: what may be spent. The rest is for costs that cannot be measured, and for names
that were never traced."""
SUCCESSORS_SHARE = 0.9
"""Of the budget, in a process that knows how much its predecessor spent lately, but not when."""
PACED_SHARE = 0.85
"""Of the budget: what the names wait for. The rest is for costs that were underestimated."""
FIXED_COST_S = 0.0003
"""Of any traced run: the guard's thread, two reads of the live traces."""
GUARD_COST_S = 0.0001
"""Of a run that ended before its slice began: the guard's thread."""
LEAST_SLICE_S = 0.004
WHOLE_SHARE = 0.8
"""Of `max_added_latency`: a run that should take longer than that under tracing is sliced."""
_PATIENCE = 4
"""A run that would fit whole is sliced after its name waited so many times for its cost."""
_RETRY_S = 0.01


@dataclass(frozen=True)
class Plan:
    """How one run is traced.

    ``allowance_s``: tracing is stopped after so much CPU time, which bounds what it can add.
    ``begin_after_s``: ``None`` to trace the whole run; otherwise a slice of it is traced, which
    begins so many seconds after the run.
    """

    allowance_s: float
    begin_after_s: float | None = None


class FirstRuns:
    """First runs of names in one process. Seconds; ``pace_s`` is on the clock of the waits."""

    def __init__(
        self, before: Balance, most_s: float, pace_s: float, chance: random.Random
    ) -> None:
        """``most_s``: the most that a run may cost; ``before``: the balance of the predecessor."""
        # The first process of a slot traces no first run: it may live long.
        self.are_traced = before.task_s > 0
        self._born_s = pace_s
        self._asked_s = min(before.asked_s, pace_s) if self.are_traced else pace_s
        self._run_s = before.run_s
        self._chance = chance
        # More than that would seldom be available at once.
        self._least_max_s = most_s / 4
        self._least_s = min(max(before.first_s, LEAST_COST_S), self._least_max_s)
        self.cost_s = self._least_s * (most_s / self._least_s) ** chance.random()
        """What a first run may cost in this process."""

    def due_s(self, mean_wait_s: float) -> float:
        """When a name that is new here is due."""
        # The wait has no memory: how much of it has passed already does not matter.
        return self._asked_s + self._chance.expovariate(1.0) * mean_wait_s

    def plan(self) -> Plan:
        """The plan of a first run: all that is known is how long a run of any name takes here."""
        is_long = self._run_s * SLOWDOWN_AT_FIRST > self.cost_s
        if is_long and self._chance.random() < 0.5:
            return Plan(self.cost_s, self._chance.random() * self._run_s)
        return Plan(self.cost_s)

    def was_traced(self, cost_s: float, *, aborted: bool) -> None:
        """A first run took ``cost_s`` under tracing; ``aborted``: until tracing was stopped."""
        # It would have gone on, nobody knows how long.
        self._least_s = min(2 * cost_s if aborted else cost_s, self._least_max_s)

    def left(
        self, known: KnownCosts, traced_runs: int, pace_s: float
    ) -> tuple[float, float, float]:
        """For the next process: the last three fields of `Balance`."""
        untraced, run_s = known.runs()
        runs = untraced + traced_runs
        # Just before the last run, which began about so long ago.
        asked_s = pace_s - (pace_s - self._born_s) / runs if runs else self._asked_s
        return asked_s, run_s if untraced else self._run_s, self._least_s


class TracingSampler:
    """Decides for the tasks of one process. Times are seconds; ``now_s`` is monotonic."""

    def __init__(
        self,
        overhead_budget: float,
        max_added_latency_s: float,
        now_s: float,
        chance: random.Random,
        before: Balance | None = None,
    ) -> None:
        self._budget = overhead_budget
        self._latency_s = max_added_latency_s
        self._chance = chance
        before = before or Balance()
        lately = RollingWindow(SPENT_SHARE * overhead_budget, WHOLE_SHARE * max_added_latency_s)
        earned = overhead_budget * (SUCCESSORS_SHARE if before.task_s > 0 else 1.0)
        self.bucket = TokenBucket(earned, max_added_latency_s / 2, lately, before, now_s)
        self._known = KnownCosts(self._first_due_s)
        self._active = 1
        self._counted_s = now_s
        self._traced_runs = 0
        most_s = WHOLE_SHARE * max_added_latency_s
        self._first = FirstRuns(before, most_s, self._pace_s(now_s), chance)

    def due(self, task: str, now_s: float) -> bool:
        """Whether to ask for a `plan`. This alone is called before every run."""
        costs = self._known.of(task, now_s)
        if self.bucket.task_s + IDLE_SHARE * now_s < costs.due_s:
            return False
        # The first run of a name imports what it needs; in a short-lived process it may be the
        # only one.
        return costs.runs > 0 or self._first.are_traced

    def ran(self, task: str, cpu_s: float, wall_s: float, now_s: float) -> None:
        """A run of `task` has ended that was not traced and had the process to itself."""
        self._known.of(task, now_s).ran(cpu_s, wall_s, now_s)

    def worked(self, cpu_s: float) -> None:
        """Tasks have used `cpu_s` more CPU time in this process, traced or not."""
        self.bucket.task_s += cpu_s

    def traced(
        self, task: str, cpu_s: float, extra_s: float, now_s: float, *, whole: bool, aborted: bool
    ) -> None:
        """Tracing of a run has ended: `cpu_s` passed under it, and `extra_s` reading the result.

        What was spent is an estimate, on the mean not too low: of a whole run what it took beyond
        an untraced one, and at least a quarter; of a slice all.
        """
        costs = self._known.of(task, now_s)
        self._traced_runs += whole
        if whole and not costs.runs:
            self._first.was_traced(cpu_s, aborted=aborted)
        seen_whole = whole and not aborted
        spent_s = max(cpu_s - costs.cpu_s, cpu_s / 4) if seen_whole else cpu_s
        costs.was_traced(cpu_s, now_s, whole=whole, aborted=aborted)
        self.spend(spent_s + extra_s, now_s)
        costs.due_s = self._pace_s(now_s) + self._wait_s(spent_s + extra_s)

    def spend(self, spent_s: float, now_s: float) -> None:
        """Spend `spent_s` of the budget."""
        self._count_active(now_s)
        self.bucket.spend(spent_s, now_s)

    def postpone(self, task: str, now_s: float) -> None:
        """A planned run could not be traced: the name waits again."""
        self._known.of(task, now_s).due_s = self._pace_s(now_s) + self._wait_s(FIXED_COST_S)

    def watched_for_nothing(self, now_s: float) -> None:
        """A run ended before its slice began; `ran` is called as well."""
        self.spend(GUARD_COST_S, now_s)

    def next_slice(self, task: str, now_s: float, left_s: float) -> Plan | None:
        """The plan of one more slice of the watched run of `task`, if one begins now.

        ``left_s``: what earlier slices left of the run's `max_added_latency`.
        """
        if self._pace_s(now_s) < self._known.of(task, now_s).due_s:
            return None
        available_s = min(left_s, self._available_s(now_s, SPENT_SHARE))
        return Plan(available_s, 0.0) if available_s >= LEAST_SLICE_S else None

    def balance(self, now_s: float) -> Balance:
        """What the next process in this slot starts with."""
        self._count_active(now_s)
        left = self._first.left(self._known, self._traced_runs, self._pace_s(now_s))
        return self.bucket.balance(now_s, left)

    def plan(self, task: str, now_s: float, limit_s: float | None = None) -> Plan | None:
        """How the run of `task` that starts now is traced, if it is.

        ``limit_s``: the run's time limit. A run that could reach it is not traced.
        """
        costs = self._known.of(task, now_s)
        # How near to its limit a name comes that never ran here is not known.
        if limit_s and (not costs.runs or costs.wall_longest_s + 2 * self._latency_s > limit_s):
            self.postpone(task, now_s)
            return None
        if not costs.runs and self._first.are_traced:
            if self._available_s(now_s, SPENT_SHARE) >= self._first.cost_s + FIXED_COST_S:
                return self._first.plan()
            costs.due_s = self._pace_s(now_s) + _RETRY_S
            return None
        # A name that was never traced goes first: the reserve is for it, too.
        available_s = self._available_s(now_s, SPENT_SHARE if costs.traced else 0.95)
        whole_s = costs.cpu_s * costs.slowdown + FIXED_COST_S
        fits = whole_s <= WHOLE_SHARE * self._latency_s
        if fits and whole_s <= available_s:
            return Plan(min(self._latency_s, available_s))
        slice_s = min(self._latency_s, available_s)
        pace_s = self._pace_s(now_s)
        if costs.denied_s is None:
            costs.denied_s = pace_s
        waited_s = pace_s - costs.denied_s
        impatient = waited_s * self._budget > _PATIENCE * whole_s
        if (not fits or impatient) and slice_s >= LEAST_SLICE_S:
            return Plan(slice_s, self._chance.random() * costs.wall_s)
        # It is asked again soon, but not at every run.
        costs.due_s = pace_s + _RETRY_S
        return None

    def _first_due_s(self, now_s: float) -> float:
        if not self._first.are_traced:
            return self._pace_s(now_s)
        # Names are new to this process, but not to the worker: they wait like all others.
        return self._first.due_s(self._mean_wait_s(self._first.cost_s))

    def _pace_s(self, now_s: float) -> float:
        """The clock of the waits: task time, and a little of the time without tasks."""
        return self.bucket.task_s + IDLE_SHARE * now_s

    def _wait_s(self, cost_s: float) -> float:
        """How long, on that clock, a name waits until its share has earned `cost_s`."""
        return (0.5 + self._chance.random()) * self._mean_wait_s(cost_s)

    def _mean_wait_s(self, cost_s: float) -> float:
        share = PACED_SHARE * self._budget / self._active
        return max(cost_s, FIXED_COST_S) / share

    def _available_s(self, now_s: float, share: float) -> float:
        self._count_active(now_s)
        return self.bucket.left_s(share, now_s)

    def _count_active(self, now_s: float) -> None:
        """Count now and then the names that share the budget."""
        if now_s - self._counted_s >= 10.0:
            self._counted_s = now_s
            self._active = max(1, self._known.seen_since(now_s - 2 * TIME_CONSTANT_S))
