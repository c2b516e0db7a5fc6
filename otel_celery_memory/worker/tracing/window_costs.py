"""What windows within the budget may cost, and what they have cost, by the process's CPU time.

Whether a run is traced is the sampler's decision (`sampler.py`). Here it is told what runs, traced
or not, and the looks between them have used, and its balance outlives the process.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.ipc.records import SHARED_NAME
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.tracing.sampler import Plan, TracingSampler

_OVERLAPPING_MAX = 1_000


class BalanceStore(Protocol):
    """Keeps the balance of a slot's tracing beyond the life of a process."""

    def load(self, slot: int) -> Balance:
        """The balance of the previous process in this slot."""

    def save(self, slot: int, balance: Balance) -> None:
        """Keep this process's balance for the next one."""


class TracingBudget:
    """Plans windows, and books what they cost."""

    def __init__(
        self,
        slot: int,
        settings: Settings,
        balances: BalanceStore,
        limit_s: Callable[[Any], float | None],
        clock_s: Callable[[], float],
        cpu_s: Callable[[], float],
        chance: random.Random,
    ) -> None:
        self._slot = slot
        self._balances = balances
        before = balances.load(slot)
        self.frames_before = int(before.frames)
        """How many frames the process before kept, if it needed more than the fewest."""
        self._limit_s = limit_s
        self._clock_s = clock_s
        self._cpu_s = cpu_s
        self.sampler = TracingSampler(
            settings.overhead_budget,
            settings.max_added_latency,
            clock_s(),
            chance,
            before,
            clock_s() + settings.warm_up,
        )
        self.cpu_mark_s = cpu_s()
        """The CPU time of the process up to which its tasks' work is booked."""
        self.run_began_s = 0.0
        """When the last run began that had the process to itself."""
        self._began_s: dict[str, float] = {}
        self._between_s = 0.0
        """CPU time between the ends and beginnings of runs that overlap: the next one has it."""
        self._window_mark_s = 0.0
        self._window_spent_s = 0.0

    def begins(self, task_id: str, *, alone: bool) -> None:
        """A run begins, ``alone`` or while others run."""
        cpu_s, now_s = self._cpu_s(), self._clock_s()
        if alone:
            self.run_began_s, self._between_s = now_s, 0.0
            self._began_s.clear()
        else:
            self.sampler.worked(cpu_s - self.cpu_mark_s)
            self._between_s += cpu_s - self.cpu_mark_s
            if len(self._began_s) < _OVERLAPPING_MAX:
                self._began_s[task_id] = now_s
        self.cpu_mark_s = cpu_s

    def book_work(self) -> float:
        """Book the CPU time of tasks until now, traced or not; how much it was, in seconds."""
        cpu_s = self._cpu_s()
        used_s = cpu_s - self.cpu_mark_s
        self.cpu_mark_s = cpu_s
        self.sampler.worked(used_s)
        return used_s

    def ran(self, name: str, task_id: str, used_s: float) -> None:
        """A run has ended that was not traced."""
        now_s = self._clock_s()
        began_s = self._began_s.pop(task_id, self.run_began_s)
        self.sampler.ran(name, self._used_s(name, used_s), now_s - began_s, now_s)

    def plan(self, name: str, task: Any, *, guarded: bool) -> Plan | None:
        """How the run of `task` that starts now begins a window, if it does."""
        return self.sampler.plan(name, self._clock_s(), self._limit_s(task), guarded=guarded)

    def goes_on(self, name: str, task: Any) -> Plan | None:
        """How it is traced in the window that is open; ``None`` where the window ends before it."""
        unbooked_s = self._cpu_s() - self._window_mark_s
        return self.sampler.goes_on(name, self._clock_s(), self._limit_s(task), unbooked_s)

    def postpone(self) -> None:
        """A window that was planned could not begin."""
        self.sampler.postpone(self._clock_s())

    def window_opens(self, began_s: float) -> None:
        """A window opens; what it costs is counted from the process's CPU time ``began_s``."""
        self._window_mark_s, self._window_spent_s = began_s, 0.0

    def run_traced(self, name: str, used_s: float, *, aborted: bool) -> None:
        """A run has ended, traced, or was ``aborted`` after ``used_s``."""
        now_s = self._clock_s()
        self.spend(self.sampler.expected_s(name, now_s))
        self.sampler.run_traced(name, self._used_s(name, used_s), now_s, aborted=aborted)

    def _used_s(self, name: str, used_s: float) -> float:
        """What a run has used: of those that overlap, a mean one has all that the process did."""
        if name != SHARED_NAME:
            return used_s
        between_s, self._between_s = self._between_s, 0.0
        return used_s + between_s

    def spend(self, expected_s: float = 0.0) -> None:
        """Book what the window has cost since the last time, but what was to be expected."""
        cpu_s, now_s = self._cpu_s(), self._clock_s()
        used_s, self._window_mark_s = cpu_s - self._window_mark_s, cpu_s
        spent_s = max(used_s - expected_s, used_s / 4)
        self._window_spent_s += spent_s
        self.sampler.spend(spent_s, now_s)

    def spend_around(self) -> None:
        """Book what the window has cost between two runs."""
        before_s = self._window_spent_s
        self.spend()
        self.sampler.spent_around(self._window_spent_s - before_s)

    def window_closed(self) -> None:
        """The window is over, and all that it cost is booked."""
        self.spend()
        self.sampler.window_closed(self._window_spent_s, self._clock_s())

    def save_balance(self, frames: int) -> None:
        """Save what was earned and spent, and ``frames``, for the next process in the slot."""
        balance = self.sampler.balance(self._clock_s())
        self._balances.save(self._slot, replace(balance, frames=float(frames)))
