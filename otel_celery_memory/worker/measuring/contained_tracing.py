"""Allocation tracing as the measurement calls it: a failure switches it off and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.circuit_breaker import PartSwitches
from otel_celery_memory.ipc.records import TaskFinished, TaskStarted
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.worker.tracing.allocation_tracer import AllocationTracer


class ContainedTracing:
    """An `AllocationTracer` that raises nothing but a task's time limit.

    Where it fails, it is switched off, `tracemalloc` is stopped, and all else goes on.
    """

    def __init__(
        self, tracer: AllocationTracer | None, session: TracemallocSession, switches: PartSwitches
    ) -> None:
        self.tracer = tracer
        """``None`` where this process traces nothing: it runs no tasks, or tracing has failed."""
        self._session = session
        self._switches = switches

    def starting(self) -> None:
        """As `AllocationTracer.starting`."""
        if self.tracer is not None:
            self._run(self.tracer.starting)

    def started(self, started: TaskStarted, task: Any, *, alone: bool) -> bool:
        """As `AllocationTracer.started`."""
        tracer = self.tracer
        return tracer is not None and bool(self._run(tracer.started, started, task, alone=alone))

    def ended(self, finished: TaskFinished) -> None:
        """As `AllocationTracer.ended`."""
        if self.tracer is not None:
            self._run(self.tracer.ended, finished)

    def down(self, previous_task: str) -> None:
        """As `AllocationTracer.down`."""
        if self.tracer is not None:
            self._run(self.tracer.down, previous_task)

    def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            self._switches.switch_off("tracing")
            self.tracer = None
            with contextlib.suppress(Exception):
                self._session.stop()
