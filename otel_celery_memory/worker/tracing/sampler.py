"""Which runs of which tasks are traced, so that tracing costs no more than its budget. Pure.

Tracing slows allocation-heavy code 3 to 40 times, so the sampler learns for each task name what
its runs cost untraced and traced, in CPU time, and spends by three rules:

- *The process*: what was spent on tracing, decaying over ten minutes, stays under
  ``overhead_budget`` of the task time that decayed alike; and no ten minutes cost more than theirs
  (`RollingWindow`).
- *The name*: each name that runs has an equal share of 85 % of that; a name that runs often cannot
  eat the others' share, and a rare one saves up for its turn. Waits are drawn at random, so that
  no rhythm of the tasks hides one from us.
- *The run*: one that would pass ``max_added_latency`` is not traced whole; a slice of it is, which
  begins at a random moment.

A process that hardly works is taken to be busy for `IDLE_SHARE` of the time, or a small task that
runs once an hour would never be seen.

Where children live for one run, or for few, a first run is all that many names ever have there.
Nothing is known of it: each process draws what one may cost it, at times so little that small runs
are seen often, at times as much as any run may cost. And it waits for that from where the one
before it was last asked: lives that are too short to wait in add up. What the last one traced has
cost is the least that the next one may, so that runs of one kind are soon seen whole.
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
"""Of the budget that is there to be spent; what is between is for costs that nobody can measure,
and for names that were never seen."""
SUCCESSORS_SHARE = 0.9
"""Of the budget, in a process that knows how much the one before it spent lately, but not when."""
PACED_SHARE = 0.85
"""Of the budget that the names wait for; what is between is for costs that were underestimated."""
FIXED_COST_S = 0.0003
"""Of any traced run: the guard's thread, two looks at what is alive."""
GUARD_COST_S = 0.0001
"""Of a run that was watched for nothing: the guard's thread."""
LEAST_SLICE_S = 0.004
WHOLE_SHARE = 0.8
"""Of `max_added_latency`: what a run may be expected to take under tracing to be traced whole."""
_PATIENCE = 4
"""A run that would fit whole is sliced after its name waited so many times for what it costs."""
_RETRY_S = 0.01


@dataclass(frozen=True)
class Plan:
    """How one run is traced.

    ``allowance_s`` is the CPU time that may pass under tracing before it is stopped, which bounds
    what tracing can add. ``begin_after_s`` is ``None`` where the whole run is traced; else a slice
    of it is, which begins so many seconds after the run.
    """

    allowance_s: float
    begin_after_s: float | None = None


class FirstRuns:
    """Of one process. Times are seconds; ``pace_s`` is on the clock of the sampler's waits."""

    def __init__(
        self, before: Balance, most_s: float, pace_s: float, chance: random.Random
    ) -> None:
        """``most_s`` is the most that a run may cost, ``before`` what the slot has left us."""
        # The first process of a slot has runs behind it as soon as any other.
        self.are_traced = before.task_s > 0
        self._born_s = pace_s
        self._asked_s = min(before.asked_s, pace_s) if self.are_traced else pace_s
        self._run_s = before.run_s
        self._chance = chance
        # Above that it would seldom be there to be spent at once.
        self._least_max_s = most_s / 4
        self._least_s = min(max(before.first_s, LEAST_COST_S), self._least_max_s)
        self.cost_s = self._least_s * (most_s / self._least_s) ** chance.random()
        """What a first run may cost this process."""

    def due_s(self, mean_wait_s: float) -> float:
        """When a name that is new here is due."""
        # A wait without memory: how much of it is over already does not matter.
        return self._asked_s + self._chance.expovariate(1.0) * mean_wait_s

    def plan(self) -> Plan:
        """Of a run of which no more is known than how long one took in this slot, of any name."""
        is_long = self._run_s * SLOWDOWN_AT_FIRST > self.cost_s
        if is_long and self._chance.random() < 0.5:
            return Plan(self.cost_s, self._chance.random() * self._run_s)
        return Plan(self.cost_s)

    def was_traced(self, cost_s: float, *, aborted: bool) -> None:
        """One took so long under tracing, from its start to its end or until that was enough."""
        # One that was stopped would have gone on: how far is not known.
        self._least_s = min(2 * cost_s if aborted else cost_s, self._least_max_s)

    def left(
        self, known: KnownCosts, traced_runs: int, pace_s: float
    ) -> tuple[float, float, float]:
        """For the next process: the last three of `Balance`."""
        untraced, run_s = known.runs()
        runs = untraced + traced_runs
        # Before the last one, which began about so long ago.
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
        """Whether it is worth asking for a `plan`: the one question before every run."""
        costs = self._known.of(task, now_s)
        if self.bucket.task_s + IDLE_SHARE * now_s < costs.due_s:
            return False
        # A name's first run imports what it needs; where processes do not live long, it may be
        # the only one.
        return costs.runs > 0 or self._first.are_traced

    def ran(self, task: str, cpu_s: float, wall_s: float, now_s: float) -> None:
        """A run of `task` ended that was not traced, and that had the process to itself."""
        self._known.of(task, now_s).ran(cpu_s, wall_s, now_s)

    def worked(self, cpu_s: float) -> None:
        """Tasks have used so much more CPU time in this process, traced or not."""
        self.bucket.task_s += cpu_s

    def traced(
        self, task: str, cpu_s: float, extra_s: float, now_s: float, *, whole: bool, aborted: bool
    ) -> None:
        """Tracing of a run ended: `cpu_s` passed under it, and `extra_s` in looking at the result.

        What was spent is not known, only estimated, and never too low on the mean: of a whole run
        what it took beyond an untraced one, at least a quarter; of a slice all.
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
        """Take `spent_s` out of the budget."""
        self._count_active(now_s)
        self.bucket.spend(spent_s, now_s)

    def postpone(self, task: str, now_s: float) -> None:
        """A run that was planned could not be traced: ask again later."""
        self._known.of(task, now_s).due_s = self._pace_s(now_s) + self._wait_s(FIXED_COST_S)

    def watched_for_nothing(self, now_s: float) -> None:
        """A run ended before the slice that was planned of it began; `ran` is told as well."""
        self.spend(GUARD_COST_S, now_s)

    def next_slice(self, task: str, now_s: float, left_s: float) -> Plan | None:
        """Whether one more slice of the run of `task` that is being watched begins now.

        ``left_s`` is what the slices before it left of the run's `max_added_latency`.
        """
        if self._pace_s(now_s) < self._known.of(task, now_s).due_s:
            return None
        funds_s = min(left_s, self._funds_s(now_s, SPENT_SHARE))
        return Plan(funds_s, 0.0) if funds_s >= LEAST_SLICE_S else None

    def balance(self, now_s: float) -> Balance:
        """What the next process in this slot begins with."""
        self._count_active(now_s)
        left = self._first.left(self._known, self._traced_runs, self._pace_s(now_s))
        return self.bucket.balance(now_s, left)

    def plan(self, task: str, now_s: float, limit_s: float | None = None) -> Plan | None:
        """How the run of `task` that starts now is traced, if it is.

        ``limit_s`` is the run's time limit: what could reach it is left alone.
        """
        costs = self._known.of(task, now_s)
        # How near a name that never ran here comes to its limit is not known.
        if limit_s and (not costs.runs or costs.wall_longest_s + 2 * self._latency_s > limit_s):
            self.postpone(task, now_s)
            return None
        if not costs.runs and self._first.are_traced:
            if self._funds_s(now_s, SPENT_SHARE) >= self._first.cost_s + FIXED_COST_S:
                return self._first.plan()
            costs.due_s = self._pace_s(now_s) + _RETRY_S
            return None
        # A name that was never seen goes before the others: the reserve is for it too.
        funds_s = self._funds_s(now_s, SPENT_SHARE if costs.traced else 0.95)
        whole_s = costs.cpu_s * costs.slowdown + FIXED_COST_S
        fits = whole_s <= WHOLE_SHARE * self._latency_s
        if fits and whole_s <= funds_s:
            return Plan(min(self._latency_s, funds_s))
        slice_s = min(self._latency_s, funds_s)
        pace_s = self._pace_s(now_s)
        if costs.denied_s is None:
            costs.denied_s = pace_s
        waited_s = pace_s - costs.denied_s
        impatient = waited_s * self._budget > _PATIENCE * whole_s
        if (not fits or impatient) and slice_s >= LEAST_SLICE_S:
            return Plan(slice_s, self._chance.random() * costs.wall_s)
        # Asked again soon, but not at every run.
        costs.due_s = pace_s + _RETRY_S
        return None

    def _first_due_s(self, now_s: float) -> float:
        if not self._first.are_traced:
            return self._pace_s(now_s)
        # A successor's names are new to it only, not to the worker: they wait like any other.
        return self._first.due_s(self._mean_wait_s(self._first.cost_s))

    def _pace_s(self, now_s: float) -> float:
        """The clock by which names wait: task time, and a little of the time without any."""
        return self.bucket.task_s + IDLE_SHARE * now_s

    def _wait_s(self, cost_s: float) -> float:
        """How long, on that clock, a name waits for its share to have earned `cost_s`."""
        return (0.5 + self._chance.random()) * self._mean_wait_s(cost_s)

    def _mean_wait_s(self, cost_s: float) -> float:
        share = PACED_SHARE * self._budget / self._active
        return max(cost_s, FIXED_COST_S) / share

    def _funds_s(self, now_s: float, share: float) -> float:
        self._count_active(now_s)
        return self.bucket.left_s(share, now_s)

    def _count_active(self, now_s: float) -> None:
        """The names that share the budget, counted now and then."""
        if now_s - self._counted_s >= 10.0:
            self._counted_s = now_s
            self._active = max(1, self._known.seen_since(now_s - 2 * TIME_CONSTANT_S))
