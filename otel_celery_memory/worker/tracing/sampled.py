"""Which runs of a process's tasks are traced: windows within the budget, and captures.

A capture goes before the budget and does not count against it: each of its runs is a window by
itself. The budget is a sampler and a balance that outlives the process. `TracingSampler.due` and
`TracingSampler.ran` are called before and after every plain run: without a lock, and directly.

The guard is an alarm in the main thread. In a run, it is set to the CPU time that the run may cost;
between two runs, to real time: a window does not stay open in a process that is idle for long, or
whose other threads work meanwhile. What it finds between two runs is sent at once, in a run at its
end.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import SHARED_NAME, TaskNotTraced, WhyNotTraced
from otel_celery_memory.probes.native_threads import native_lock
from otel_celery_memory.probes.sites import SiteFilter
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.probes.urgent_signal import Alarm, prepare
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.record_writer import RecordSink
from otel_celery_memory.worker.tracing.captured_runs import CapturedRuns
from otel_celery_memory.worker.tracing.depth import (
    DEEP_FRAMES,
    OVERLAPPING_FRAMES,
    WINDOW_FRAMES,
    Depth,
)
from otel_celery_memory.worker.tracing.sampler import Plan, is_complete
from otel_celery_memory.worker.tracing.site_records import (
    TaskCode,
    found_records,
)
from otel_celery_memory.worker.tracing.traced_window import Found, TracedWindow
from otel_celery_memory.worker.tracing.window_costs import TracingBudget

logger = logging.getLogger(__name__)

LINGER_S = 0.02
"""A window that is complete is closed when the next task starts, at most so long after its end."""
_IDLE_CHECK_S = 1.0
_IDLE_MOST_S = 600.0
"""How long a window waits for the next run."""
_IDLE_CPU_S = 0.01
"""How much the process may work between two runs before the window is closed."""
_GUARD_RETRY_S = 0.005


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
        self._page = page
        self._clock_s = clock_s
        self._cpu_s = cpu_s
        self._chosen = chosen
        self._code = TaskCode(chosen)
        chance = chance or random.Random()  # noqa: S311
        self._budget = TracingBudget(slot, settings, page, limit_s, clock_s, cpu_s, chance)
        self._sampler = self._budget.sampler
        self._captures = CapturedRuns(slot, page)
        # A capture by signal begins in a thread of its own.
        self._opening = native_lock()
        self._window: TracedWindow | None = None
        self._capture: Commands | None = None
        """The capture that the window is part of, if any."""
        self._in_window: dict[str, str] = {}
        """Names of the runs in flight that began in the window, by task id."""
        self._plan = Plan(0.0)
        self._run_cpu_s = self._idle_s = self._idle_cpu_s = 0.0
        self._shared = self._raised = False
        self._running: tuple[str, str] | None = None
        self._told: dict[str, WhyNotTraced] = {}
        self._stepped_back = False
        self._stopped: Found | None = None
        least = max(settings.frames, WINDOW_FRAMES)
        self._depth = Depth(least, DEEP_FRAMES, self._budget.frames_before)
        self._overlapping_depth = Depth(max(settings.frames, OVERLAPPING_FRAMES), WINDOW_FRAMES)
        self._alarm = Alarm(self._guard)
        self.always = False
        self.budgeted = True
        """Whether the sampler decides; otherwise there are captures only."""
        self._guarded = prepare()
        tracer.stop_in_forks()

    def starting(self) -> None:
        """A task is about to start, before anything of it is measured."""
        window = self._window
        if window is None:
            return
        if not window.is_open:
            self._close()  # by the guard, in a run whose end was never reported
        elif not self._in_window:
            self._alarm.cancel()
            if self._capture is None:
                self._budget.spend_around()
            if self._is_complete(window):
                self._close()
            else:
                window.between_runs()
        elif self._shared:
            window.between_runs()

    def started(self, task_id: str, task: Any, *, alone: bool) -> bool:
        """A task has started; whether it is traced from here, so that its numbers begin again."""
        name = task.name
        self.runs(task_id, name, alone=alone)
        if not self.budgeted and self._captures.ordered is None and self._window is None:
            return False
        if alone and self._in_window:
            self._close()  # the end of its task was never reported
        self._budget.begins(task_id, alone=alone)
        if self._capture is not None and self._in_window:
            self._shared = True
            return False
        plan = self._goes_on(name, task) if self._window is not None else None
        if plan is None:
            if self._window is not None:
                self._close()
            plan = self._opens(name, task, alone=alone)
        window = self._window
        if plan is None or window is None:
            return False
        self._code.add(name, task)
        self._plan = plan
        self._shared |= not alone
        self._in_window[task_id] = name
        self._run_cpu_s = self._cpu_s()
        self._guarded = self._alarm.set(cpu_s=plan.expected_s + plan.allowance_s)
        window.run_starts(name, alone=alone)
        return True

    def runs(self, task_id: str, name: str, *, alone: bool) -> None:
        """A task runs from now on, traced or not."""
        self._running = (name if alone else SHARED_NAME, task_id)

    def ended(self, task_id: str, task: str, *, exclusive: bool, raised: bool) -> None:
        """This task has ended, and its memory is measured; as `AllocationTracer.ended`."""
        if self._running is not None and self._running[1] == task_id:
            self._running = None
        window = self._window  # in a pool of threads, another task may close it meanwhile
        if not self.budgeted and window is None:
            return
        used_s = self._budget.book_work()
        name = self._in_window.pop(task_id, None)
        if name is None or window is None:
            if window is not None and window.is_open and self._capture is None and not exclusive:
                # It began before the window, and what ran meanwhile was traced.
                self._budget.run_traced(SHARED_NAME, used_s, aborted=False)
            else:
                self._budget.ran(task if exclusive else SHARED_NAME, task_id, used_s)
            return
        self._shared |= not exclusive
        self._raised = raised
        if self._capture is None:
            # Of tasks that overlap, nobody knows what each of them used.
            costs = name if exclusive else SHARED_NAME
            self._budget.run_traced(costs, used_s, aborted=not window.is_open)
            self._trace_faster(costs)
        window.run_ends(name, raised=raised)
        if not window.is_open or not window.whole:
            self._close()
        elif not self._in_window:
            self._idle_s, self._idle_cpu_s = self._clock_s(), self._cpu_s()
            self._alarm.set(real_s=LINGER_S if self._is_complete(window) else _IDLE_CHECK_S)

    @property
    def has_window(self) -> bool:
        """Whether a window is open."""
        return self._window is not None

    def task_code_begins(self, task: Any) -> None:
        """The code of this task, which has started, is about to run."""
        window = self._window
        if window is not None and self._in_window and not task.request.is_eager:
            window.task_code_begins()

    def passes(self, name: str, task_id: str) -> bool:
        """Whether a run that starts alone now is plain: not traced, and no window is open.

        Where ``False``, nothing has been done: call `starting` and `started`.
        """
        if self._window is not None or self._captures.ordered is not None or self.always:
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
        """The run has ended for which `passes` was true."""
        if self._window is not None:  # a capture began inside it
            self._close()
        running, self._running = self._running, None
        if not self.budgeted or running is None:
            return
        used_s = self._cpu_s() - self._budget.cpu_mark_s
        now_s = self._clock_s()
        self._sampler.bucket.task_s += used_s
        self._sampler.ran(running[0], used_s, now_s - self._budget.run_began_s, now_s)

    def apply(self, orders: Commands, *, now: bool = False) -> None:
        """Begin the capture that is ordered; ``now``: with the run that is in flight."""
        wanted = self._captures.order(orders, self._clock_s())
        running = self._running
        meant = running is not None and orders.task in ("", running[0])
        if wanted and now and self._window is None and running and meant:
            self._plan = Plan(orders.allowance_s)
            self._run_cpu_s = self._cpu_s()
            if self._open(orders, self._depth, whole=False):
                self._in_window[running[1]] = running[0]
                self._shared = running[0] == SHARED_NAME
                assert self._window is not None
                self._window.run_starts(running[0], alone=False)
                self._alarm.set(cpu_s=orders.allowance_s)

    def _trace_faster(self, costs: str) -> None:
        """Keep fewer frames again, where deeper stacks leave room for too few runs."""
        depth = self._depth_of(alone=costs != SHARED_NAME)
        now_s = self._clock_s()
        if depth.is_deep and self._sampler.is_too_slow(costs, now_s):
            depth.too_slow()
            self._sampler.traces_faster(costs, now_s)

    def _depth_of(self, *, alone: bool) -> Depth:
        return self._depth if alone else self._overlapping_depth

    def asked(self) -> None:
        """Somebody else uses ``tracemalloc``: what runs now is never traced again."""
        names = set(self._in_window.values())
        running = self._running
        if running is not None:
            names.add(running[0])
        if not names or SHARED_NAME in names:
            self._stepped_back = True
        for name in names:
            self._page.step_back_from(name)
            self._send_not_traced(name, WhyNotTraced.TRACEMALLOC)
        window = self._window
        if window is not None:
            self._closed(window, window.close(aborted=True, wait=False))

    def steps_back_from(self, name: str) -> bool:
        """Whether this task is not traced, as it uses ``tracemalloc`` itself."""
        return self._stepped_back or self._page.steps_back_from(name)

    def heap_has_grown(self, seconds: float) -> None:
        """The heap of the process has grown for so long: what is alive in it is worth more."""
        self._sampler.heap_has_grown(seconds)

    def samples_have_cost(self, seconds: float) -> None:
        """Samples of the counters have cost so much: told as spent, and paid from their share."""
        if self.budgeted:  # otherwise the tasks' time is not booked either
            self._sampler.bucket.spent_s += seconds

    def save_balance(self) -> None:
        """Save what was earned and spent, for the next process in the slot, and tell of which names
        no run is traced."""
        self._save_balance()
        for name, reason in self._sampler.refused().items():
            if self._told.get(name, WhyNotTraced.TRACED) is not reason:
                self._told[name] = reason
                self._send_not_traced(name, reason)

    def _save_balance(self) -> None:
        self._budget.save_balance(self._depth.frames if self._depth.is_deep else 0)

    def _send_not_traced(self, name: str, reason: WhyNotTraced) -> None:
        self._sink.send(TaskNotTraced(self._pid, time.time_ns(), name, reason.value))

    def down(self) -> None:
        """The process ends, or traces otherwise from now on."""
        if self._window is not None:
            self._close()
        self.save_balance()

    def _opens(self, name: str, task: Any, *, alone: bool) -> Plan | None:
        """How this run begins a window, if it does."""
        capture = self._captures.ordered
        plan: Plan | None = None
        # Of tasks that overlap, it is only known what they cost together.
        costs = name if alone else SHARED_NAME
        if self._tracer.user_traces or self.steps_back_from(name):
            return None
        if capture is not None:
            plan = self._captures.plan(name, self._clock_s())
        elif self.budgeted and self._sampler.due(costs, self._clock_s()):
            plan = self._budget.plan(costs, task, guarded=self._guarded)
            if plan is not None and not self._tracer.can_stop_safely():
                plan = None
                self._budget.postpone()
        depth = self._depth_of(alone=alone)
        if plan is None or not self._open(capture, depth, whole=alone or capture is None):
            return None
        return plan

    def _goes_on(self, name: str, task: Any) -> Plan | None:
        """How this run is traced in the window that is open; ``None`` where that ends."""
        window = self._window
        if window is None or self._capture is not None or not window.is_open or window.is_full:
            return None
        if self._captures.ordered is not None or self.steps_back_from(name):
            return None
        return self._budget.goes_on(SHARED_NAME if self._shared else name, task)

    def _open(self, capture: Commands | None, depth: Depth, *, whole: bool) -> bool:
        window = TracedWindow(self._tracer, whole=whole, compared=capture is None)
        began_s = self._cpu_s()
        with self._opening:
            if self._window is not None:
                return False
            self._window, self._capture = window, capture
            self._in_window = {}
            self._shared, self._raised = False, False
        if window.open(depth.frames if capture is None else self._tracer.frames):
            self._budget.window_opens(began_s)
            return True
        self._window = None
        if capture is None:
            self._budget.postpone()
        return False

    def _is_complete(self, window: TracedWindow) -> bool:
        if self._capture is not None:
            return window.runs >= 1
        return is_complete(window.runs, window.beginners)

    def _guard(self) -> None:
        """The alarm, in the main thread, between two bytecodes of whatever runs there."""
        try:
            self._alarmed()
        except SoftTimeLimitExceeded:
            raise  # of the task, which happened to hit us
        except Exception:
            logger.exception("otel_celery_memory: the guard of a traced run failed")
            self._tracer.stop()

    def _alarmed(self) -> None:
        """Close the window if it has cost enough, or no run follows; else look again later."""
        window = self._window
        if window is None or not window.is_open:
            return
        if self._in_window:
            left_s = self._plan.expected_s + self._plan.allowance_s
            left_s -= self._cpu_s() - self._run_cpu_s
            if left_s > 0:
                self._alarm.set(cpu_s=max(left_s, _GUARD_RETRY_S))
                return
            # What it found is sent when the run ends.
            found = window.close(aborted=True, wait=False)
            if found is None:
                self._alarm.set(cpu_s=_GUARD_RETRY_S)
            else:
                self._stopped = found
            return
        idle_s = self._clock_s() - self._idle_s
        worked_s = self._cpu_s() - self._idle_cpu_s
        if self._is_complete(window) or idle_s > _IDLE_MOST_S or worked_s > _IDLE_CPU_S:
            self._closed(window, window.close(wait=False))
        else:
            self._alarm.set(real_s=_IDLE_CHECK_S)

    def _close(self) -> None:
        window = self._window
        if window is not None:
            self._closed(window, window.close())

    def _closed(self, window: TracedWindow, found: Found | None) -> None:
        """The window is closed: book what it cost, and send what it found."""
        stopped, self._stopped = self._stopped, None
        found = found or stopped
        if window is not self._window or (found is None and window.is_open):
            return  # another thread closes it, or has closed it
        self._alarm.cancel()
        capture = self._capture
        self._window, self._capture, self._in_window = None, None, {}
        if found is None:
            return
        if capture is None:
            self._budget.window_closed()
        self._save_balance()
        # Without a lock: greenlets may switch while a record is sent.
        records, deep = found_records(
            self._pid,
            found,
            self._chosen,
            self._code,
            capture,
            shared=self._shared,
            with_exception=self._raised,
            may_be_deeper=self._depth.may_be_deeper,
        )
        if deep:
            self._depth_of(alone=not self._shared).too_shallow()
        for record in records:
            self._sink.send(record)
        self._captures.sent(capture)
