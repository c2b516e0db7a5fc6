"""Which runs of a process's tasks are traced: the budget decides, a `TracedRun` traces.

A capture that a person asked for goes before the budget and does not count against it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

from otel_celery_memory.ipc.commands import Orders
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import TaskFinished
from otel_celery_memory.probes.native_threads import native_lock
from otel_celery_memory.probes.sites import SiteFilter
from otel_celery_memory.probes.tracemalloc_session import HeapTracer
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.pipe import Sink
from otel_celery_memory.worker.tracing.captured_runs import CapturedRuns
from otel_celery_memory.worker.tracing.plan import Plan
from otel_celery_memory.worker.tracing.site_records import SHARED_NAME, raised, run_records
from otel_celery_memory.worker.tracing.traced_run import TracedRun
from otel_celery_memory.worker.tracing.tracing_budget import TracingBudget
from otel_celery_memory.worker.tracing.tracing_window import Traced


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
        self._sampler.funds.task_s += used_s
        self._sampler.ran(running[0], used_s, now_s - self._budget.run_began_s, now_s)

    def obey(self, orders: Orders, *, now: bool = False) -> None:
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

    def _trace(self, plan: Plan, name: str, task_id: str, capture: Orders | None) -> bool:
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

    def _found(self, name: str, traced: Traced, capture: Orders | None) -> None:
        if capture is None:
            self._budget.traced(name, traced)
        self._budget.settle()
        # Not under a lock: greenlets may change places while something is sent.
        task = SHARED_NAME if self._run_shared else name
        found = (self._pid, task, traced, self._chosen, capture)
        for record in run_records(*found, with_exception=self._run_raised):
            self._sink.send(record)
        self._captures.sent(capture)
