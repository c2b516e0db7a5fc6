"""Which runs of a process's tasks are traced: the budget decides, a `TracedRun` traces.

A capture that a person asked for goes before the budget and does not count against it. The budget
is a sampler that guards' threads ask too, and the balances that outlive a process. What is asked
before and behind every plain run, `TracingSampler.due` and `TracingSampler.ran`, takes no lock and
goes to the sampler itself.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

from otel_celery_memory.ipc.commands import Balance, Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import TaskFinished
from otel_celery_memory.probes.native_threads import native_lock
from otel_celery_memory.probes.sites import SiteFilter
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.pipe import RecordSink
from otel_celery_memory.worker.tracing.sampler import Plan, TracingSampler
from otel_celery_memory.worker.tracing.site_records import SHARED_NAME, raised, run_records
from otel_celery_memory.worker.tracing.traced_run import Traced, TracedRun

_OVERLAPPING_MAX = 1_000


class Tally(Protocol):
    """Keeps beyond the life of a process what its slot has sent of a capture."""

    def captured(self, slot: int, capture: int) -> int:
        """How many windows of this capture the slot has sent."""

    def count_captured(self, slot: int, capture: int) -> None:
        """One more."""


class CapturedRuns:
    """One capture at a time, each once. Times are seconds; ``now_s`` is monotonic.

    The runs are the slot's, not the process's: where children do not live that long, the next one
    goes on where the one before has got to.
    """

    def __init__(self, slot: int, tally: Tally) -> None:
        self.ordered: Commands | None = None
        """The capture that is being taken."""
        self._slot = slot
        self._tally = tally
        self._runs_left = 0
        self._last = 0

    def order(self, orders: Commands, now_s: float) -> bool:
        """Take what is ordered, if that is news; whether any of it is still wanted."""
        if not orders.capture or now_s >= orders.until_s:
            return False
        if orders.capture != self._last:
            self._last = orders.capture
            self.ordered = orders
            self._runs_left = orders.runs - self._tally.captured(self._slot, orders.capture)
            if orders.runs and self._runs_left <= 0:
                self.ordered = None
        return self.ordered is not None

    def plan(self, now_s: float) -> Plan | None:
        """The plan of the run that starts now; ends a capture that has all it wanted."""
        orders = self.ordered
        if orders is None:
            return None
        if now_s >= orders.until_s or (orders.runs and self._runs_left <= 0):
            self.ordered = None
            return None
        self._runs_left -= 1
        return Plan(orders.allowance_s)

    def sent(self, orders: Commands | None) -> None:
        """A window was sent, of this capture or of none: a successor need not trace that run."""
        if orders is not None:
            self._tally.count_captured(self._slot, orders.capture)


class BalanceStore(Protocol):
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
        tracer: TracemallocSession,
        balances: BalanceStore,
        limit_s: Callable[[Any], float | None],
        clock_s: Callable[[], float],
        cpu_s: Callable[[], float],
        chance: random.Random,
    ) -> None:
        self._slot = slot
        self._tracer = tracer
        self._balances = balances
        self._limit_s = limit_s
        self._clock_s = clock_s
        self._cpu_s = cpu_s
        self._lock = native_lock()
        self.sampler = TracingSampler(
            settings.overhead_budget,
            settings.max_added_latency,
            clock_s(),
            chance,
            balances.load(slot),
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
            self._balances.save(self._slot, self.sampler.balance(self._clock_s()))


class SampledTracing:
    """Tracing within a budget, and captures, for the tasks of one process.

    ``starting``, ``started`` and ``ended`` are called for tasks that are not nested in another.
    """

    def __init__(
        self,
        slot: int,
        sink: RecordSink,
        settings: Settings,
        tracer: TracemallocSession,
        page: ControlPage,
        limit_s: Callable[[Any], float | None],
        chosen: SiteFilter,
        clock_s: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = time.process_time,
        chance: random.Random | None = None,
    ) -> None:
        self._pid = os.getpid()
        self._sink = sink
        self._tracer = tracer
        self._clock_s = clock_s
        self._cpu_s = cpu_s
        self._chosen = chosen
        chance = chance or random.Random()  # noqa: S311
        self._budget = TracingBudget(slot, settings, tracer, page, limit_s, clock_s, cpu_s, chance)
        self._sampler = self._budget.sampler
        self._captures = CapturedRuns(slot, page)
        # A capture by signal comes from a thread of its own.
        self._lock = native_lock()
        self._run: TracedRun | None = None
        self._run_id = ""
        self._run_ended = self._run_shared = self._run_raised = False
        self._running: tuple[str, str] | None = None
        self._latency_s = settings.max_added_latency
        self.always = False
        self.budgeted = True
        """Whether the sampler decides; else there are captures only."""
        tracer.stop_in_forks()

    def starting(self) -> None:
        """A task is about to start, before anything of it is measured."""
        run = self._run  # another thread may end it as well
        if run is not None and self._run_ended:
            self._run = None
            run.end()

    def started(self, task_id: str, task: Any, *, alone: bool) -> bool:
        """A task has started. Whether its numbers must begin anew, as it is traced from here."""
        name = task.name if alone else SHARED_NAME
        self._running = (name, task_id)
        if not self.budgeted and self._captures.ordered is None:
            return False
        now_s = self._budget.begins(task_id, alone=alone)
        run = self._run
        if run is not None:
            if not alone:
                self._run_shared = True
                return False
            self._run = None
            run.end()  # its task's end was never told
        capture = self._captures.ordered
        if capture is not None:
            plan = self._captures.plan(now_s)
        elif self._sampler.due(name, now_s):
            plan = self._budget.plan(name, task, now_s, alone=alone)
        else:
            return False
        return plan is not None and self._trace(plan, name, task_id, capture)

    def ended(self, finished: TaskFinished) -> None:
        """A task has ended, its numbers are taken."""
        if self._running is not None and self._running[1] == finished.task_id:
            self._running = None
        run = self._run  # in a pool of threads, the next task to start ends it meanwhile
        if not self.budgeted and run is None:
            return
        used_s = self._budget.book_work()
        if self._run_id == finished.task_id and run is not None:
            self._run_ended = True
            self._run_shared |= not finished.exclusive
            self._run_raised = raised(finished.state)
            run.task_ended()
            if run.was_seen:
                return
            self._budget.watched_for_nothing()
        name = finished.task if finished.exclusive else SHARED_NAME
        self._budget.ran(name, finished.task_id, used_s)

    def passes(self, name: str, task_id: str) -> bool:
        """Whether a run that starts alone now is one like most: not traced, nothing to end.

        Where it is not, nothing has been done, and `starting` and `started` are to be called.
        """
        if self._run is not None or self._captures.ordered is not None or self.always:
            return False
        if self.budgeted:
            now_s = self._clock_s()
            if self._sampler.due(name, now_s):
                return False
            self._budget.run_began_s = now_s
            self._budget.cpu_mark_s = self._cpu_s()
        self._running = (name, task_id)
        return True

    def passed(self) -> None:
        """The run that `passes` let by has ended."""
        if self._run is not None:  # a capture began inside it
            self._run_ended = True
            self._run.task_ended()
        running, self._running = self._running, None
        if not self.budgeted or running is None:
            return
        used_s = self._cpu_s() - self._budget.cpu_mark_s
        now_s = self._clock_s()
        self._sampler.bucket.task_s += used_s
        self._sampler.ran(running[0], used_s, now_s - self._budget.run_began_s, now_s)

    def obey(self, orders: Commands, *, now: bool = False) -> None:
        """Begin the capture that is ordered; with `now` also of what is running."""
        wanted = self._captures.order(orders, self._clock_s())
        if wanted and now and self._run is None and self._running:
            self._trace(Plan(orders.allowance_s, 0.0), *self._running, orders)

    def settle(self) -> None:
        """Keep what was earned and spent where a successor finds it."""
        self._budget.settle()

    def down(self) -> None:
        """The process ends."""
        run, self._run = self._run, None
        if run is not None:
            run.end()
        self.settle()

    def _trace(self, plan: Plan, name: str, task_id: str, capture: Commands | None) -> bool:
        left_s = self._latency_s

        def found(traced: Traced) -> None:
            nonlocal left_s
            left_s -= traced.cpu_s + traced.extra_s
            self._found(name, traced, capture)

        def next_slice() -> Plan | None:
            return None if capture else self._budget.next_slice(name, left_s)

        run = TracedRun(plan, self._tracer, found, next_slice, self._cpu_s)
        with self._lock:
            if self._run is not None:
                return False
            self._run, self._run_id, self._run_ended = run, task_id, False
            self._run_shared, self._run_raised = name == SHARED_NAME, False
        if run.begin():
            return plan.begin_after_s is None
        self._run = None
        if capture is None:
            self._budget.postpone(name)
        return False

    def _found(self, name: str, traced: Traced, capture: Commands | None) -> None:
        if capture is None:
            self._budget.traced(name, traced)
        self._budget.settle()
        # Not under a lock: greenlets may change places while something is sent.
        task = SHARED_NAME if self._run_shared else name
        found = (self._pid, task, traced, self._chosen, capture)
        for record in run_records(*found, with_exception=self._run_raised):
            self._sink.send(record)
        self._captures.sent(capture)
