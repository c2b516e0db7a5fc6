"""A process that runs tasks for virtual hours, and what tracing truly costs it.

The sampler is told what a process can measure. What tracing really cost is computed here, from
how much slower each task's code is under tracing, and the sampler never learns it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.worker.tracing.sampler import TracingSampler

STEP_S = 10
WINDOW_STEPS = 60
"""Ten minutes."""
HOUR_S = 3600.0
_LOOK_S = 0.0002
"""To look at what a window left: measured by the process."""
_THREAD_S = 0.00006
"""To start the guard's thread: measured by nobody."""
_NEXT_SLICE_S = 1.0


@dataclass(frozen=True)
class Kind:
    """A task: how often it runs, what a run takes, how much slower its code is when traced.

    It runs from `from_s` to `to_s`, at random moments `every_s` apart, or in a burst of runs
    exactly so far apart. Of its CPU time `spread` is the lognormal's deviation.
    """

    name: str
    every_s: float
    cpu_s: float
    slowdown: float
    spread: float = 0.2
    wait_s: float = 0.0
    from_s: float = 0.0
    to_s: float = math.inf
    burst: bool = False
    at_night: bool = False


@dataclass
class Day:
    """What happened, by steps of `STEP_S`, and when which name ran and was traced."""

    task_s: list[float]
    overhead_s: list[float]
    ran_s: dict[str, list[float]] = field(default_factory=dict)
    traced_s: dict[str, list[float]] = field(default_factory=dict)
    longest_delay_s: float = 0.0
    whole: Counter[str] = field(default_factory=Counter)
    slices_s: dict[str, list[float]] = field(default_factory=dict)
    """How long after its run's beginning each slice began."""

    def overspent(self, budget: float, floor_s: float) -> list[tuple[float, float, float]]:
        """Windows of ten minutes that cost more than they may: hour, task time, overhead."""
        found = []
        for end in range(WINDOW_STEPS, len(self.task_s) + 1):
            task_s = math.fsum(self.task_s[end - WINDOW_STEPS : end])
            overhead_s = math.fsum(self.overhead_s[end - WINDOW_STEPS : end])
            if overhead_s > max(budget * task_s, floor_s):
                found.append((end * STEP_S / HOUR_S, task_s, overhead_s))
        return found

    def share(self) -> float:
        """Overhead over task time, of all that happened."""
        return math.fsum(self.overhead_s) / math.fsum(self.task_s)

    def longest_unseen_s(self, name: str) -> float:
        """The longest time between two traces of a name, that it did not run in left out.

        Counted in whole minutes in which it ran.
        """
        minutes = sorted({int(at // 60) for at in self.ran_s[name]})
        traced = {int(at // 60) for at in self.traced_s.get(name, [])}
        longest = unseen = 0
        for minute in minutes:
            unseen = 0 if minute in traced else unseen + 1
            longest = max(longest, unseen)
        return longest * 60.0

    def first_trace_after_s(self, name: str) -> float:
        """From a name's first run to its first trace; infinite where it has none."""
        return min(self.traced_s.get(name, [math.inf])) - self.ran_s[name][0]


class Worker:
    """One process after another in one slot, each for `tasks_per_child` tasks."""

    def __init__(
        self,
        kinds: list[Kind],
        hours: float,
        seed: int,
        budget: float = 0.01,
        latency_s: float = 0.25,
        tasks_per_child: int = 0,
        quiet_hours: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self._kinds = kinds
        self._end_s = hours * HOUR_S
        self._chance = random.Random(seed)
        self._budget, self._latency_s = budget, latency_s
        self._tasks_per_child = tasks_per_child
        self._quiet_s = (quiet_hours[0] * HOUR_S, quiet_hours[1] * HOUR_S)
        self._balances: dict[int, Balance] = {}
        self._tasks = 0
        steps = int(self._end_s / STEP_S)
        self._day = Day([0.0] * steps, [0.0] * steps)

    def run(self) -> Day:
        """All runs until the end."""
        queue: list[tuple[float, int]] = []
        for index, kind in enumerate(self._kinds):
            self._push(queue, kind.from_s, index)
        now_s = 0.0
        sampler = self._process(now_s)
        while queue:
            due_s, index = heapq.heappop(queue)
            kind = self._kinds[index]
            self._push(queue, due_s, index)
            if self._quiet_s[0] <= due_s < self._quiet_s[1] and not kind.at_night:
                continue
            now_s = max(now_s, due_s)
            if now_s >= self._end_s:
                break
            if self._tasks_per_child and self._tasks >= self._tasks_per_child:
                self._balances[0] = sampler.balance(now_s)
                sampler = self._process(now_s)
            self._tasks += 1
            now_s = self._run(sampler, kind, now_s)
        return self._day

    def _process(self, now_s: float) -> TracingSampler:
        self._tasks = 0
        chance = random.Random(self._chance.random())
        return TracingSampler(self._budget, self._latency_s, now_s, chance, self._balances.get(0))

    def _push(self, queue: list[tuple[float, int]], after_s: float, index: int) -> None:
        kind = self._kinds[index]
        wait_s = kind.every_s if kind.burst else self._chance.expovariate(1 / kind.every_s)
        if after_s + wait_s < min(kind.to_s, self._end_s):
            heapq.heappush(queue, (after_s + wait_s, index))

    def _run(self, sampler: TracingSampler, kind: Kind, now_s: float) -> float:
        """A run; the time at its end."""
        cpu_s = kind.cpu_s * self._chance.lognormvariate(0, kind.spread)
        wall_s = cpu_s + kind.wait_s
        self._day.ran_s.setdefault(kind.name, []).append(now_s)
        plan = sampler.plan(kind.name, now_s) if sampler.due(kind.name, now_s) else None
        delay_s, overhead_s = 0.0, 0.0
        if plan is not None and plan.begin_after_s is None:
            under_s = min(cpu_s * kind.slowdown, plan.allowance_s)
            delay_s = under_s - under_s / kind.slowdown
            overhead_s = _THREAD_S + _LOOK_S + delay_s
            end_s = now_s + wall_s + delay_s
            sampler.worked(cpu_s + delay_s)
            aborted = under_s < cpu_s * kind.slowdown
            sampler.traced(kind.name, under_s, _LOOK_S, end_s, whole=True, aborted=aborted)
            self._day.whole[kind.name] += not aborted
            self._traced(kind, now_s)
        elif plan is not None:
            overhead_s = _THREAD_S
            assert plan.begin_after_s is not None
            delay_s, windows = self._slices(
                sampler, kind, cpu_s, wall_s, now_s, plan.begin_after_s, plan.allowance_s
            )
            end_s = now_s + wall_s + delay_s
            if not windows:
                sampler.watched_for_nothing(end_s)
                sampler.ran(kind.name, cpu_s, wall_s, end_s)
        else:
            end_s = now_s + wall_s
            sampler.worked(cpu_s)
            sampler.ran(kind.name, cpu_s, wall_s, end_s)
        self._day.longest_delay_s = max(self._day.longest_delay_s, delay_s)
        self._book(now_s, end_s, cpu_s)
        self._spend(now_s, overhead_s)
        return end_s

    def _slices(
        self,
        sampler: TracingSampler,
        kind: Kind,
        cpu_s: float,
        wall_s: float,
        now_s: float,
        at_s: float,
        allowance_s: float,
    ) -> tuple[float, int]:
        """Slices of one run, the first at `at_s`: how much it is delayed, and how many."""
        busy = cpu_s / wall_s
        delay_s, windows, told_s, left_s = 0.0, 0, 0.0, self._latency_s
        while at_s < wall_s:
            self._day.slices_s.setdefault(kind.name, []).append(at_s)
            rest_s = (wall_s - at_s) * busy * kind.slowdown
            under_s = min(allowance_s, rest_s)
            delay_s += under_s - under_s / kind.slowdown
            left_s -= under_s
            at_s += under_s / kind.slowdown / busy
            windows += 1
            self._spend(now_s + at_s + delay_s, under_s - under_s / kind.slowdown + _LOOK_S)
            worked_s = min(at_s, wall_s) * busy + delay_s
            sampler.worked(worked_s - told_s)
            told_s = worked_s
            sampler.traced(
                kind.name, under_s, _LOOK_S, now_s + at_s + delay_s, whole=False, aborted=False
            )
            self._traced(kind, now_s)
            plan = None
            while plan is None and at_s < wall_s:
                at_s += _NEXT_SLICE_S
                worked_s = min(at_s, wall_s) * busy + delay_s
                sampler.worked(worked_s - told_s)
                told_s = worked_s
                plan = sampler.next_slice(kind.name, now_s + at_s + delay_s, left_s)
            allowance_s = plan.allowance_s if plan else 0.0
        sampler.worked(cpu_s + delay_s - told_s)
        return delay_s, windows

    def _traced(self, kind: Kind, now_s: float) -> None:
        self._day.traced_s.setdefault(kind.name, []).append(now_s)

    def _spend(self, at_s: float, overhead_s: float) -> None:
        step = min(int(at_s / STEP_S), len(self._day.overhead_s) - 1)
        self._day.overhead_s[step] += overhead_s

    def _book(self, now_s: float, end_s: float, cpu_s: float) -> None:
        """Task time is spread over the run."""
        steps = len(self._day.task_s)
        first, last = int(now_s / STEP_S), min(int(end_s / STEP_S), steps - 1)
        for step in range(first, last + 1):
            self._day.task_s[step] += cpu_s / (last - first + 1)
