"""A run of a task under real tracing, on a CPU clock that a test moves."""

from __future__ import annotations

import _thread
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from otel_celery_memory.probes.sites import LiveSites
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.worker.tracing.sampler import Plan
from otel_celery_memory.worker.tracing.traced_run import Traced, TracedRun
from tests.processes import wait_until
from tests.unit.fakes import FakeClock

WHOLE = Plan(allowance_s=10.0)


class RunBench:
    """Runs a body as a task: what tracing found of it, as `SampledTracing` would be told."""

    def __init__(self, plan: Plan = WHOLE, frames: int = 1) -> None:
        self.tracer = TracemallocSession(frames)
        self.tracer.stop_in_forks()
        self.cpu = FakeClock()
        self.found: list[Traced] = []
        self.next_plans: list[Plan] = []
        self.threads = _thread._count()
        self.run = TracedRun(plan, self.tracer, self.found.append, self._next_slice, self.cpu)

    def _next_slice(self) -> Plan | None:
        return self.next_plans.pop() if self.next_plans else None

    def task(self, body: Callable[[], object]) -> None:
        """The task from its start to its end; what it returns is alive until its end is told."""
        assert self.run.begin()
        result = body()
        self.run.task_ended()
        del result

    def wait_for(self, windows: int) -> None:
        """So many windows have been found."""
        wait_until("windows are found", lambda: len(self.found) >= windows, 30)

    def over(self) -> list[Traced]:
        """The next task begins; all that was found, when the guard's thread is gone."""
        self.run.end()
        wait_until("the guard is gone", lambda: _thread._count() <= self.threads, 30)
        return self.found

    def only(self) -> Traced:
        """The one window there is."""
        (traced,) = self.over()
        return traced


def here(path: str, sites: LiveSites) -> dict[int, tuple[int, int]]:
    """Bytes and blocks by line, of those allocated in one file."""
    return {frames[0][1]: found for frames, found in sites.items() if frames[0][0] == path}


def wait_for_tracing(on: bool = True) -> None:
    """The task is in the middle of a slice, or behind it."""
    wait_until("tracing is on or off", lambda: tracemalloc.is_tracing() is on, 30)


def flags(traced: Traced) -> dict[str, Any]:
    """All but the sites and the times."""
    return {"whole": traced.whole, "aborted": traced.aborted}


def plan(**changes: Any) -> Plan:
    """A plan for a whole run, with changes."""
    return replace(WHOLE, **changes)
