"""When a window of allocation tracing begins and ends, so that it stays within its budget. Pure.

Tracing slows allocation-heavy code 3 to 40 times. So the sampler learns for each task name what its
runs cost untraced and traced, in CPU time, and spends by three rules:

- *The process*: what was spent on tracing, decaying over ten minutes, stays under
  ``overhead_budget`` of the task time, which decays alike. No ten minutes cost more than their
  budget or `TRACING_FLOOR_S`, whichever is more (`RollingWindow`). After a window the process waits
  until that has been earned again.
- *The window*: it covers the runs of all names, as they come, for as long as the budget lasts and
  each next run fits. It begins with a run of the name that was traced least, if such a run comes
  within seconds. So a rare name has its turn, and one that runs often has no more than it needs.
- *The run*: tracing adds at most ``max_added_latency`` to a run. One that should take longer is not
  traced, and a window ends before it; so a heavy name costs the others nothing. How much slower a
  name gets is tried by runs that the guard stops in time, and again after a long wait. One run
  that took long is not taken for slow, two in a row are.

A process that hardly works counts as busy for `IDLE_SHARE` of the time. Otherwise a small task that
runs once an hour would never be traced.

*While the heap grows*, `GROWING_SHARE` of the time counts besides: with the usual budget, tracing
may use 2 % of a core more. Growth is established by counters that cost next to nothing
(`worker/measuring/run_counters.py`), and then the line is asked for.

The first run of a name in a process is not traced, as it imports what it needs, nor are the first
few of a process. Where children live for a few runs only, there are no others, and these are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from otel_celery_memory.ipc.commands import NO_BALANCE, Balance
from otel_celery_memory.ipc.records import SHARED_NAME, WhyNotTraced
from otel_celery_memory.settings import TRACING_FLOOR_S
from otel_celery_memory.worker.tracing.budget import (
    SLOWDOWN_AT_FIRST,
    TIME_CONSTANT_S,
    KnownCosts,
    RollingWindow,
    TaskCosts,
    TokenBucket,
)

IDLE_SHARE = 0.01
GROWING_SHARE = 2.0
"""A process whose heap grows earns as much as one that works so many times of the time."""
SPENT_SHARE = 0.9
"""Of the budget: what may be spent. The rest is for costs that cannot be measured."""
SUCCESSORS_SHARE = 0.9
"""Of the budget, in a process that knows how much its predecessor spent lately, but not when."""
PACED_SHARE = 0.85
"""Of the budget: what a process waits for. The rest is for costs that were underestimated."""
AROUND_COST_S = 0.002
"""What tracing adds around a run, to Celery's own code and by ours, until that is learned."""
CLOSING_COST_S = 0.02
"""What the end of a window costs: the last looks and, often, a full collection."""
MOST_SHARE = 0.8
"""Of `max_added_latency`: a run to which tracing should add more is not traced."""
_RUNS_ENOUGH = 40
"""Of a window: a leak of one object in each run stands out of what happens now and then."""
_BEGINNERS_RUNS = 4
"""Of the name that began the window, before it is over: of a name that runs now and then, its first
run alone would be in the window, and that one has nothing to be compared with."""
_RUNS_MOST = 320
_RUNS_WANTED = 12
_RUNS_LEAST = 4
_RUNS_WANTED_SHARED = 24
"""Where runs overlap: a few say nothing beside those that are in flight."""
_FULL_SHARE = 0.7
_WARM_RUNS = 3
_TURN_S = 5.0
"""How long a name that was traced least is waited for."""
_TRIED_AGAIN_FACTOR = 20
_RETRY_S = 0.01


@dataclass(frozen=True)
class Plan:
    """How one run is traced: it is stopped when tracing has added ``allowance_s`` of CPU time.

    ``expected_s`` is what the run takes without.
    """

    allowance_s: float
    expected_s: float = 0.0


def is_complete(runs: int, beginners: int) -> bool:
    """Whether a window has all the runs it needs; ``beginners``: those of its first run's name."""
    return runs >= (_RUNS_ENOUGH if beginners >= _BEGINNERS_RUNS else _RUNS_MOST)


class TracingSampler:
    """Decides for the tasks of one process. Times are seconds; ``now_s`` is monotonic."""

    def __init__(
        self,
        overhead_budget: float,
        max_added_latency_s: float,
        now_s: float,
        chance: random.Random,
        before: Balance | None = None,
        overlapping_from_s: float = 0.0,
    ) -> None:
        """Runs that overlap are traced from ``overlapping_from_s`` on: their first window costs all
        that a new process may spend, and says nothing while connections are made and caches fill.
        """
        self._overlapping_from_s = overlapping_from_s
        self._budget = overhead_budget
        self._latency_s = max_added_latency_s
        self._most_added_s = MOST_SHARE * max_added_latency_s
        self._chance = chance
        self._before = before or NO_BALANCE
        self._began_s = now_s
        succeeds = self._before.task_s > 0
        floor_s = TRACING_FLOOR_S
        lately = RollingWindow(SPENT_SHARE * overhead_budget, floor_s)
        earned = overhead_budget * (SUCCESSORS_SHARE if succeeds else 1.0)
        self.bucket = TokenBucket(earned, floor_s, lately, self._before, now_s)
        self._known = KnownCosts()
        self._short_lived = 0 < self._before.runs <= _WARM_RUNS
        self.due_s = self._pace_s(now_s)
        """When the next window begins, on the clock of the waits; compared before every run."""
        self._around_s = AROUND_COST_S
        self._much_s = _FULL_SHARE * SPENT_SHARE * floor_s
        """Nearly as much as can be available at once."""
        self._runs = 0
        self._turn_until_s: float | None = None

    def due(self, task: str, now_s: float) -> bool:
        """Whether to ask for a `plan`. This alone is called before every run."""
        bucket = self.bucket
        if bucket.task_s + bucket.granted_s + IDLE_SHARE * now_s < self.due_s:
            return False
        return self._short_lived or self._known.of(task, now_s).runs > 0

    def ran(self, task: str, cpu_s: float, wall_s: float, now_s: float) -> None:
        """A run of `task` has ended that was not traced."""
        self._runs += 1
        self._known.of(task, now_s).ran(cpu_s, wall_s, now_s)

    def worked(self, cpu_s: float) -> None:
        """Tasks have used `cpu_s` more CPU time in this process, traced or not."""
        self.bucket.task_s += cpu_s

    def heap_has_grown(self, seconds: float) -> None:
        """The heap of the process has grown for so long."""
        self.bucket.granted_s += GROWING_SHARE * seconds

    def plan(self, task: str, now_s: float, limit_s: float | None, *, guarded: bool) -> Plan | None:
        """How the run of `task` that starts now begins a window, if it does.

        ``limit_s``: the run's time limit. A run that could reach it is not traced. ``guarded``:
        whether a run that takes longer than expected is stopped.
        """
        costs = self._known.of(task, now_s)
        if not costs.runs or self._runs < _WARM_RUNS:
            return self._first_plan(now_s, limit_s) if guarded else None
        if task == SHARED_NAME and now_s < self._overlapping_from_s:
            self._later(now_s)
            return None
        available_s = self.bucket.left_s(SPENT_SHARE, now_s)
        most_s = self._most_added_s
        cost_s = costs.added_s + self._around_s
        if costs.added_s > most_s:
            # It may be less than that: nobody knows before it was tried.
            may_try = guarded and self._pace_s(now_s) >= costs.due_s
            cost_s = min(most_s, self._much_s) if may_try else float("inf")
        elif not self._short_lived:
            # Where another name could begin, and waits for this one's turn, a few runs will do.
            runs = _RUNS_WANTED if self._turn_until_s is None else _RUNS_LEAST
            if task == SHARED_NAME:
                runs = _RUNS_WANTED_SHARED
            wanted_s = runs * cost_s + CLOSING_COST_S
            if available_s < min(wanted_s, self._much_s):
                self._later(now_s)
                return None
        if self._in_danger(costs, limit_s) or cost_s > available_s:
            self._later(now_s)
            return None
        if not self._has_turn(costs, now_s):
            return None
        return Plan(min(self._latency_s, available_s), costs.cpu_s)

    def goes_on(
        self, task: str, now_s: float, limit_s: float | None, unbooked_s: float = 0.0
    ) -> Plan | None:
        """How the run of `task` that starts now is traced in the window that is open.

        ``None``: the window ends before it. ``unbooked_s``: CPU time of the window that is not
        spent yet, as of runs that overlap none may have ended for long.
        """
        costs = self._known.of(task, now_s)
        if not costs.runs:
            # Where runs overlap, a name may never have had the process to itself.
            costs = self._known.of(SHARED_NAME, now_s)
        available_s = self.bucket.left_s(SPENT_SHARE, now_s)
        available_s -= unbooked_s * (1.0 - 1.0 / costs.slowdown)
        added_s = costs.added_s if costs.runs else float("inf")
        # Twice, as it may take longer than expected: then all would have been for nothing.
        needs_s = 2 * added_s + self._around_s + CLOSING_COST_S
        if added_s > self._most_added_s or needs_s > available_s:
            return None
        if self._in_danger(costs, limit_s):
            return None
        return Plan(self._latency_s, costs.cpu_s)

    def run_traced(self, task: str, cpu_s: float, now_s: float, *, aborted: bool) -> None:
        """A traced run took `cpu_s`; ``aborted``: until tracing was stopped."""
        self._runs += 1
        costs = self._known.of(task, now_s)
        costs.was_traced(cpu_s, now_s, aborted=aborted)
        if aborted or costs.added_s > self._most_added_s:
            # A run that is stopped costs as much as many that name something.
            costs.due_s = self._pace_s(now_s) + _TRIED_AGAIN_FACTOR * costs.cpu_s / self._budget

    def is_too_slow(self, task: str, now_s: float) -> bool:
        """Whether a few traced runs of `task` are more than a window may cost."""
        cost_s = self._known.of(task, now_s).added_s + self._around_s
        runs = _RUNS_LEAST if task != SHARED_NAME else _RUNS_WANTED
        return runs * cost_s + CLOSING_COST_S > self._much_s

    def traces_faster(self, task: str, now_s: float) -> None:
        """From now on tracing costs less: how much, is to be learned anew."""
        self._known.of(task, now_s).forget_traced()
        self._around_s = AROUND_COST_S

    def spent_around(self, spent_s: float) -> None:
        """Between two traced runs `spent_s` was spent."""
        self._around_s += (spent_s - self._around_s) * 0.2

    def spend(self, spent_s: float, now_s: float) -> None:
        """Spend `spent_s` of the budget."""
        self.bucket.spend(max(spent_s, 0.0), now_s)

    def window_closed(self, spent_s: float, now_s: float) -> None:
        """A window is over that has cost `spent_s`, which is spent already: the process waits."""
        self._turn_until_s = None
        if self.bucket.left_s(SPENT_SHARE, now_s) > TRACING_FLOOR_S / 3:
            self._later(now_s)  # enough for one more window of small runs
            return
        wait_s = max(spent_s, AROUND_COST_S) / (PACED_SHARE * self._budget)
        self.due_s = self._pace_s(now_s) + (0.5 + self._chance.random()) * wait_s

    def postpone(self, now_s: float) -> None:
        """A planned window could not begin: the process waits a little."""
        self.window_closed(0.0, now_s)

    def expected_s(self, task: str, now_s: float) -> float:
        """What a run of `task` takes that is not traced."""
        return self._known.of(task, now_s).cpu_s

    def balance(self, now_s: float) -> Balance:
        """What the next process in this slot starts with."""
        untraced, run_s = self._known.runs()
        if not self._runs:
            return self.bucket.balance(
                now_s, self._before.runs, self._before.run_s, self._before.lived_s
            )
        run_s = run_s if untraced else self._before.run_s
        return self.bucket.balance(now_s, self._runs, run_s, now_s - self._began_s)

    def _first_plan(self, now_s: float, limit_s: float | None) -> Plan | None:
        """Of a run of which nothing is known here, in a process that will not have many."""
        if not self._short_lived or limit_s:
            self._later(now_s)
            return None
        run_s = self._before.run_s
        cost_s = min(run_s * (SLOWDOWN_AT_FIRST - 1), self._most_added_s) + AROUND_COST_S
        available_s = self.bucket.left_s(SPENT_SHARE, now_s)
        if available_s < max(cost_s, self._much_s / 4):
            self._later(now_s)
            return None
        return Plan(min(self._latency_s, available_s), run_s)

    def refused(self) -> dict[str, WhyNotTraced]:
        """By name, why its runs are not traced, or that they are; not for want of budget."""
        return {name: self._why_not(costs) for name, costs in self._known.items()}

    def _why_not(self, costs: TaskCosts) -> WhyNotTraced:
        if costs.near_limit:
            return WhyNotTraced.TIME_LIMIT
        # Before it was tried, nobody knows.
        is_slow = costs.traced and costs.added_s > self._most_added_s
        return WhyNotTraced.SLOW if is_slow else WhyNotTraced.TRACED

    def _in_danger(self, costs: TaskCosts, limit_s: float | None) -> bool:
        """Whether a run could reach its time limit because it is traced."""
        longest_s = costs.wall_longest_s + 2 * self._latency_s
        costs.near_limit = bool(limit_s) and longest_s > (limit_s or 0.0)
        return costs.near_limit

    def _has_turn(self, costs: TaskCosts, now_s: float) -> bool:
        """Whether a window begins with this name, or waits for one that was traced less."""
        if self._turn_until_s is None:
            self._turn_until_s = now_s + _TURN_S
        least = self._known.least_traced(now_s - TIME_CONSTANT_S)
        return costs.traced <= least or now_s >= self._turn_until_s

    def _later(self, now_s: float) -> None:
        """Ask again soon, but not at every run."""
        self.due_s = self._pace_s(now_s) + _RETRY_S * (0.5 + self._chance.random())

    def _pace_s(self, now_s: float) -> float:
        """The clock of the waits: task time, and a little of the time without tasks."""
        return self.bucket.task_s + self.bucket.granted_s + IDLE_SHARE * now_s
