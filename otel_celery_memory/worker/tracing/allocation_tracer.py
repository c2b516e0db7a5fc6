"""Allocation tracing of one process: off, within a budget or always, by settings or command.

It is called before and after each task that is not plain. `SampledTracing` does the work within a
budget, `RunDiff` and `HeapDiff` where tracing is always on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import WindowKind
from otel_celery_memory.probes.allocators import give_back_free_memory
from otel_celery_memory.probes.sites import SiteFilter, live_sites
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.record_writer import RecordSink
from otel_celery_memory.worker.tracing.always_on import HeapDiff, RunDiff
from otel_celery_memory.worker.tracing.sampled import SampledTracing
from otel_celery_memory.worker.tracing.site_records import left_alive, window_records

logger = logging.getLogger(__name__)


class AllocationTracer:
    """The allocation tracing of one process; ``mode`` is ``budget``, ``always`` or ``off``."""

    def __init__(
        self,
        slot: int,
        sink: RecordSink,
        settings: Settings,
        page: ControlPage,
        tracer: TracemallocSession,
        limit_s: Callable[[Any], float | None],
        chosen: SiteFilter,
    ) -> None:
        self._pid = os.getpid()
        self._slot = slot
        self._sink = sink
        self._settings = settings
        self._page = page
        self._tracer = tracer
        self._chosen = chosen
        self.tasks = SampledTracing(slot, sink, settings, tracer, page, limit_s, chosen)
        tracer.asked = self._asked
        self._run_diff: RunDiff | None = None
        self._heap_diff: HeapDiff | None = None
        self._heap_capture = 0
        self._captured = 0
        self.seen = b""
        """Which orders are applied, as `ControlPage.commands_version` numbers them."""
        self.mode = ""
        # A child that starts in the middle of a capture takes part in it.
        if not self._apply_orders():
            self._apply(Commands())

    def starting(self) -> None:
        """A task is about to start; nothing of it is measured yet."""
        self.tasks.starting()

    def started(self, task_id: str, task: Any, previous_task: str, *, alone: bool) -> bool:
        """A task that is not nested has started; ``alone``: it has the process to itself.

        Whether its numbers must begin again from here, because we have allocated meanwhile.
        """
        if self._page.commands_version() != self.seen:
            self._apply_orders()
        if self._run_diff is None:
            return self.tasks.started(task_id, task, alone=alone)
        name = task.name
        self.tasks.runs(task_id, name, alone=alone)
        if self.tasks.steps_back_from(name):
            self._tracer.stop()
            return False
        if not self._tracer.ours and self._tracer.start():
            # Nothing can be compared with what was alive before.
            self._begin_diffs()
        for record in self._run_diff.task_starts(name, previous_task):
            self._sink.send(record)
        if self._heap_diff is not None:
            for record in self._heap_diff.task_starts():
                self._sink.send(record)
        if self._heap_capture:
            self._capture_heap()
        return True

    def ended(self, task_id: str, name: str, *, exclusive: bool, raised: bool) -> None:
        """A task that is not nested has ended; ``exclusive``: no other task ran meanwhile."""
        if self._run_diff is None:
            self.tasks.ended(task_id, name, exclusive=exclusive, raised=raised)
        elif raised:
            self._run_diff.run_raised()

    def capture_now(self) -> None:
        """Start the capture that is ordered with the run that is in flight; called in a thread."""
        orders = self._page.commands()
        if self._run_diff is None:
            self.tasks.apply(orders, now=True)
        elif self._takes_heap(orders):
            self._capture_heap()

    def down(self, previous_task: str) -> None:
        """The process ends after a run of `previous_task`."""
        self.tasks.down()
        if self._run_diff is not None:
            for record in self._run_diff.close(previous_task):
                self._sink.send(record)

    def stop(self) -> None:
        """Stop the tracing that we have started."""
        self.tasks.down()
        self._tracer.stop()

    def _apply_orders(self) -> bool:
        """Apply the orders; ``False`` while they are being written: the next task tries again.

        The number is read first: orders that come between the two are applied a second time.
        """
        number = self._page.commands_version()
        orders = self._page.read_commands()
        if orders is None:
            return False
        self.seen = number
        self._apply(orders)
        return True

    def _apply(self, orders: Commands) -> None:
        self._switch(orders.mode or self._settings.tracing)
        if self._run_diff is None:
            self.tasks.apply(orders)
        else:
            self._takes_heap(orders)

    def _takes_heap(self, orders: Commands) -> bool:
        """Whether a capture of the heap is ordered that this slot has not taken yet."""
        if orders.capture in (0, self._captured) or time.monotonic() >= orders.until_s:
            return False
        if self._page.captured(self._slot, orders.capture):
            return False  # the previous process in this slot took it
        self._captured = self._heap_capture = orders.capture
        return True

    def _switch(self, mode: str) -> None:
        if mode == self.mode:
            return
        if self.mode == "always":
            if not self._tracer.can_stop_safely():
                logger.warning("otel_celery_memory: tracing cannot be stopped safely; it stays on")
                return
            self._tracer.stop()
            self._run_diff = self._heap_diff = None
        self.mode = mode
        self.tasks.budgeted = mode == "budget"
        self.tasks.always = mode == "always"
        self._tracer.clears_free_lists = mode != "always"
        if mode == "always":
            self.tasks.down()
            self._tracer.start()
            self._begin_diffs()

    def _begin_diffs(self) -> None:
        self._run_diff = RunDiff(self._chosen)
        self._heap_diff = HeapDiff(self._chosen, self._settings.sites_interval)

    def _asked(self) -> None:
        """Somebody else uses ``tracemalloc``; it must not raise into his code."""
        try:
            self.tasks.asked()
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            logger.exception("otel_celery_memory: tracing could not step back in order")

    def _capture_heap(self) -> None:
        """Send all that is traced and alive in this process."""
        capture, self._heap_capture = self._heap_capture, 0
        sites = {"": left_alive(live_sites(), self._chosen)}
        for record in window_records(self._pid, WindowKind.HEAP, "", sites, capture=capture):
            self._sink.send(record)
        self._page.count_captured(self._slot, capture)
        del sites
        give_back_free_memory()
