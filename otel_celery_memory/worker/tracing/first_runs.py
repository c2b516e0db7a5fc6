"""How first runs are traced in a process that takes the place of another. Pure.

Where children live for one run, or for few, a first run is all that many names ever have there.
Nothing is known of it: each process draws what one may cost it, at times so little that small runs
are seen often, at times as much as any run may cost. And it waits for that from where the one
before it was last asked: lives that are too short to wait in add up. What the last one traced has
cost is the least that the next one may, so that runs of one kind are soon seen whole.
"""

from __future__ import annotations

import random

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.worker.tracing.cost_model import SLOWDOWN_AT_FIRST, KnownCosts
from otel_celery_memory.worker.tracing.plan import Plan

LEAST_COST_S = 0.003


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
