"""The budget of one process's tracing: a sampler that guards' threads ask too, and its ledger.

What is asked before and behind every plain run, `Sampler.due` and `Sampler.ran`, takes no lock and
goes to the sampler itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol

from otel_celery_memory.ipc.commands import Balance
from otel_celery_memory.probes.native_threads import native_lock
from otel_celery_memory.probes.tracemalloc_session import HeapTracer
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.tracing.plan import Plan
from otel_celery_memory.worker.tracing.sampler import Sampler
from otel_celery_memory.worker.tracing.tracing_window import Traced

_OVERLAPPING_MAX = 1_000


class Ledger(Protocol):
    """Keeps what was earned and spent on tracing beyond the life of a process."""

    def load(self, slot: int) -> Balance:
        """What the process before in this slot left."""

    def save(self, slot: int, balance: Balance) -> None:
        """What this process leaves."""


class TracingBudget:
    """Plans runs, and books what their tracing cost."""

    def __init__(
        self,
        slot: int,
        settings: Settings,
        tracer: HeapTracer,
        ledger: Ledger,
        limit_s: Callable[[Any], float | None],
        clock_s: Callable[[], float],
        cpu_s: Callable[[], float],
        chance: random.Random,
    ) -> None:
        self._slot = slot
        self._tracer = tracer
        self._ledger = ledger
        self._limit_s = limit_s
        self._clock_s = clock_s
        self._cpu_s = cpu_s
        self._lock = native_lock()
        self.sampler = Sampler(
            settings.overhead_budget,
            settings.max_added_latency,
            clock_s(),
            chance,
            ledger.load(slot),
        )
        self.cpu_mark_s = cpu_s()
        """The process's CPU time up to which the work of its tasks is booked."""
        self.run_began_s = 0.0
        """When the run began that began last with the process to itself."""
        self._began_s: dict[str, float] = {}

    def begins(self, task_id: str, *, alone: bool) -> float:
        """A run begins, in the company of others or ``alone``: now, in seconds."""
        cpu_s, now_s = self._cpu_s(), self._clock_s()
        if alone:
            self.run_began_s = now_s
            self._began_s.clear()
        else:
            self.sampler.worked(cpu_s - self.cpu_mark_s)
            if len(self._began_s) < _OVERLAPPING_MAX:
                self._began_s[task_id] = now_s
        self.cpu_mark_s = cpu_s
        return now_s

    def book_work(self) -> float:
        """Book the work of tasks until now, traced or not: how much it was."""
        cpu_s = self._cpu_s()
        used_s = cpu_s - self.cpu_mark_s
        self.cpu_mark_s = cpu_s
        self.sampler.worked(used_s)
        return used_s

    def ran(self, name: str, task_id: str, used_s: float) -> None:
        """A run has ended that was not traced."""
        now_s = self._clock_s()
        began_s = self._began_s.pop(task_id, self.run_began_s)
        self.sampler.ran(name, used_s, now_s - began_s, now_s)

    def plan(self, name: str, task: Any, now_s: float, *, alone: bool) -> Plan | None:
        """How the run of `task` that starts now is traced, if it is."""
        if self._tracer.session:
            return None  # somebody traces already
        with self._lock:
            plan = self.sampler.plan(name, now_s, self._limit_s(task))
        if plan is None:
            return None
        if not self._tracer.can_stop_safely():
            self.postpone(name)
            return None
        # Among other tasks a run has no beginning of its own to be seen from.
        return plan if alone else Plan(plan.allowance_s, 0.0)

    def postpone(self, name: str) -> None:
        """A run that was planned could not be traced."""
        with self._lock:
            self.sampler.postpone(name, self._clock_s())

    def next_slice(self, name: str, left_s: float) -> Plan | None:
        """Whether one more slice of a long run begins now; books the work until now."""
        with self._lock:
            self.book_work()
            return self.sampler.next_slice(name, self._clock_s(), left_s)

    def watched_for_nothing(self) -> None:
        """A run ended before the slice that was planned of it began."""
        with self._lock:
            self.sampler.watched_for_nothing(self._clock_s())

    def traced(self, name: str, traced: Traced) -> None:
        """A window of a run is closed."""
        with self._lock:
            self.sampler.traced(
                name,
                traced.cpu_s,
                traced.extra_s,
                self._clock_s(),
                whole=traced.whole,
                aborted=traced.aborted,
            )

    def settle(self) -> None:
        """Keep what was earned and spent where a successor finds it."""
        with self._lock:
            self._ledger.save(self._slot, self.sampler.balance(self._clock_s()))
