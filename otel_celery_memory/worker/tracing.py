"""Which runs of one process's tasks are traced, from their start to the records of what they left.

The sampler decides, a `TracedRun` traces, and what it found becomes records. A capture that a
person asked for goes before the sampler and does not count against its budget.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

from otel_celery_memory.orders import Balance, Orders
from otel_celery_memory.probes.sites import SiteFilter
from otel_celery_memory.probes.threads import native_lock
from otel_celery_memory.probes.tracer import HeapTracer
from otel_celery_memory.records import TaskFinished, WindowKind
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.plan import Plan
from otel_celery_memory.worker.sampler import Sampler
from otel_celery_memory.worker.sink import Sink
from otel_celery_memory.worker.site_records import left_alive, window_records
from otel_celery_memory.worker.traced_run import TracedRun
from otel_celery_memory.worker.tracing_window import Traced

logger = logging.getLogger(__name__)

SHARED_NAME = "_shared"
"""The task name of sites that were seen while several tasks ran: no one task's."""
_OVERLAPPING_MAX = 1_000


class Ledger(Protocol):
    """Keeps what was earned and spent on tracing beyond the life of a process."""

    def load(self, slot: int) -> Balance:
        """What the process before in this slot left."""

    def save(self, slot: int, balance: Balance) -> None:
        """What this process leaves."""


class TaskTracing:
    """Tracing within a budget, and captures, for the tasks of one process.

    ``starting``, ``started`` and ``ended`` are called for tasks that are not nested in another.
    """

    def __init__(
        self,
        slot: int,
        sink: Sink,
        settings: Settings,
        tracer: HeapTracer,
        ledger: Ledger,
        limit_s: Callable[[Any], float | None],
        chosen: SiteFilter,
        clock_s: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = time.process_time,
        chance: random.Random | None = None,
    ) -> None:
        self._pid = os.getpid()
        self._slot = slot
        self._sink = sink
        self._tracer = tracer
        self._ledger = ledger
        self._limit_s = limit_s
        self._clock_s = clock_s
        self._cpu_s = cpu_s
        self._chosen = chosen
        self._sampler = Sampler(
            settings.overhead_budget,
            settings.max_added_latency,
            clock_s(),
            chance or random.Random(),  # noqa: S311
            ledger.load(slot),
        )
        # The guard's thread comes here too.
        self._lock = native_lock()
        self._run: TracedRun | None = None
        self._run_id = ""
        self._run_ended = False
        self._run_shared = False
        self._running: tuple[str, str] | None = None
        self._capture: Orders | None = None
        self._capture_runs = 0
        self._captured = 0
        self._latency_s = settings.max_added_latency
        self._cpu_mark_s = cpu_s()
        self._run_began_s = 0.0
        self._began_s: dict[str, float] = {}
        self.always = False
        self.budgeted = True
        """Whether the sampler decides; else there are captures only."""
        self.unsafe = False
        """Whether tracing was left alone because stopping it could crash this process."""
        tracer.stop_in_forks()

    def starting(self) -> None:
        """A task is about to start, before anything of it is measured."""
        if self._run is not None and self._run_ended:
            run, self._run = self._run, None
            run.end()

    def started(self, task_id: str, task: Any, *, alone: bool) -> bool:
        """A task has started. Whether its numbers must begin anew, as it is traced from here."""
        self._running = (task.name if alone else SHARED_NAME, task_id)
        if not self.budgeted and self._capture is None:
            return False
        cpu_s, now_s = self._cpu_s(), self._clock_s()
        name = task.name if alone else SHARED_NAME
        if alone:
            self._run_began_s = now_s
            self._began_s.clear()
        else:
            self._sampler.worked(cpu_s - self._cpu_mark_s)
            if len(self._began_s) < _OVERLAPPING_MAX:
                self._began_s[task_id] = now_s
        self._cpu_mark_s = cpu_s
        if self._run is not None:
            if not alone:
                self._run_shared = True
                return False
            # The end of the run that was traced was never told.
            self._run.end()
            self._run = None
        if self._capture is not None:
            plan, capture = self._captures(now_s), self._capture
        elif self._sampler.due(name, now_s):
            plan, capture = self._plan(name, task, now_s, alone), None
        else:
            return False
        return plan is not None and self._trace(plan, name, task_id, capture)

    def ended(self, finished: TaskFinished) -> None:
        """A task has ended, its numbers are taken."""
        if self._running is not None and self._running[1] == finished.task_id:
            self._running = None
        if not self.budgeted and self._run is None:
            return
        cpu_s = self._cpu_s()
        used_s = cpu_s - self._cpu_mark_s
        self._cpu_mark_s = cpu_s
        self._sampler.worked(used_s)
        if self._run_id == finished.task_id and self._run is not None:
            self._run_ended = True
            self._run_shared |= not finished.exclusive
            self._run.task_ended()
            if self._run.was_seen:
                return
            with self._lock:
                self._sampler.watched_for_nothing(self._clock_s())
        now_s = self._clock_s()
        began_s = self._began_s.pop(finished.task_id, self._run_began_s)
        name = finished.task if finished.exclusive else SHARED_NAME
        self._sampler.ran(name, used_s, now_s - began_s, now_s)

    def passes(self, name: str, task_id: str) -> bool:
        """Whether a run that starts alone now is one like most: not traced, nothing to end.

        Where it is not, nothing has been done, and `starting` and `started` are to be called.
        """
        if self._run is not None or self._capture is not None or self.always:
            return False
        if self.budgeted:
            now_s = self._clock_s()
            if self._sampler.due(name, now_s):
                return False
            self._run_began_s = now_s
            self._cpu_mark_s = self._cpu_s()
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
        used_s = self._cpu_s() - self._cpu_mark_s
        now_s = self._clock_s()
        self._sampler.funds.task_s += used_s
        self._sampler.ran(running[0], used_s, now_s - self._run_began_s, now_s)

    def obey(self, orders: Orders, *, now: bool = False) -> None:
        """Begin the capture that is ordered; with `now` also of what is running."""
        if not orders.capture or self._clock_s() >= orders.until_s:
            return
        if orders.capture != self._captured:
            self._captured = orders.capture
            self._capture, self._capture_runs = orders, orders.runs
        if now and self._capture is not None and self._run is None and self._running:
            self._trace(Plan(orders.allowance_s, 0.0), *self._running, orders)

    def settle(self) -> None:
        """Keep what was earned and spent where a successor finds it."""
        with self._lock:
            self._ledger.save(self._slot, self._sampler.balance(self._clock_s()))

    def down(self) -> None:
        """The process ends."""
        run, self._run = self._run, None
        if run is not None:
            run.end()
        self.settle()

    def _plan(self, name: str, task: Any, now_s: float, alone: bool) -> Plan | None:
        if self._tracer.session:
            return None  # somebody traces already
        with self._lock:
            plan = self._sampler.plan(name, now_s, self._limit_s(task))
        if plan is None:
            return None
        self.unsafe = not self._tracer.can_stop_safely()
        if self.unsafe:
            with self._lock:
                self._sampler.postpone(name, now_s)
            return None
        # Among other tasks a run has no beginning of its own to be seen from.
        return plan if alone else Plan(plan.allowance_s, 0.0)

    def _captures(self, now_s: float) -> Plan | None:
        """The plan of a captured run; ends a capture that has all it wanted."""
        assert self._capture is not None
        orders = self._capture
        if now_s >= orders.until_s or (orders.runs and self._capture_runs <= 0):
            self._capture = None
            return None
        self._capture_runs -= 1
        return Plan(orders.allowance_s)

    def _trace(self, plan: Plan, name: str, task_id: str, capture: Orders | None) -> bool:
        left_s = self._latency_s

        def found(traced: Traced) -> None:
            nonlocal left_s
            left_s -= traced.cpu_s + traced.extra_s
            self._found(name, traced, capture)

        def next_slice() -> Plan | None:
            cpu_s = self._cpu_s()
            with self._lock:
                self._sampler.worked(cpu_s - self._cpu_mark_s)
                self._cpu_mark_s = cpu_s
                now_s = self._clock_s()
                return None if capture else self._sampler.next_slice(name, now_s, left_s)

        run = TracedRun(plan, self._tracer, found, next_slice, self._cpu_s)
        with self._lock:
            # A capture by signal comes from a thread of its own.
            if self._run is not None:
                return False
            self._run, self._run_id, self._run_ended = run, task_id, False
            self._run_shared = name == SHARED_NAME
        if run.begin():
            return plan.begin_after_s is None
        self._run = None
        if capture is None:
            with self._lock:
                self._sampler.postpone(name, self._clock_s())
        return False

    def _found(self, name: str, traced: Traced, capture: Orders | None) -> None:
        now_s = self._clock_s()
        with self._lock:
            if capture is None:
                self._sampler.traced(
                    name,
                    traced.cpu_s,
                    traced.extra_s,
                    now_s,
                    whole=traced.whole,
                    aborted=traced.aborted,
                )
            self._ledger.save(self._slot, self._sampler.balance(now_s))
            shared = self._run_shared
        # Not under the lock: greenlets may change places while something is sent.
        whole = traced.whole and not traced.aborted and not shared
        for record in window_records(
            self._pid,
            WindowKind.RUN if whole else WindowKind.SLICE,
            SHARED_NAME if shared else name,
            left_alive(traced.sites, self._chosen),
            aborted=traced.whole and traced.aborted,
            capture=capture.capture if capture else 0,
        ):
            self._sink.send(record)
