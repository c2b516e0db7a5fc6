"""The traces that the pool's tasks belong to, as the main process knows them: by their messages.

A task that takes its process with it takes its span too, which nobody sends then. Its message's
trace context is in the main process: the processes that run tasks do nothing for it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from celery.worker import state
from opentelemetry import propagate, trace
from opentelemetry.context import Context

from otel_celery_memory.ipc.records import NO_SPAN
from otel_celery_memory.worker.measuring.spans import span_bytes

logger = logging.getLogger(__name__)


class TaskTrace(NamedTuple):
    """A task and the span that its message came from, `NO_SPAN` where it is in no sampled trace."""

    task_id: str = ""
    span: bytes = NO_SPAN


class RunningTraces:
    """What each child of the pool runs; asked when one has ended."""

    def __init__(self, requests: Iterable[Any] = state.active_requests) -> None:
        self._requests = requests
        self._known: dict[int, TaskTrace] = {}
        self._pool: Any = None
        self._ours: Callable[[Any, int], None] | None = None
        self._before: Callable[[Any, int], None] | None = None

    def follow(self, pool: Any) -> None:
        """Be called by billiard's pool for the task of a child that is gone.

        Celery's pool strikes that task off before it tells of the child.
        """
        before = getattr(pool, "on_job_process_down", None)
        if before is None or before is self._ours:
            return

        def job_process_down(job: Any, pid: int) -> None:
            with contextlib.suppress(Exception):
                self._known[pid] = self.of(pid)
            before(job, pid)

        self._pool, self._before, self._ours = pool, before, job_process_down
        pool.on_job_process_down = job_process_down

    def release(self) -> None:
        """Put back what was there."""
        if self._pool is not None and self._pool.on_job_process_down is self._ours:
            self._pool.on_job_process_down = self._before
        self._pool = self._ours = self._before = None

    def look(self, pids: Iterable[int]) -> None:
        """Remember what the pool's children run; called now and then.

        A task that is revoked or overdue is struck off long before its process has ended.
        """
        running = self._running()
        self._known = {pid: self._trace(pid, running) for pid in pids}

    def of(self, pid: int) -> TaskTrace:
        """What this process runs, or was last seen to."""
        return self._trace(pid, self._running())

    def _running(self) -> dict[int, Any]:
        return {request.worker_pid: request for request in list(self._requests)}

    def _trace(self, pid: int, running: dict[int, Any]) -> TaskTrace:
        request, known = running.get(pid), self._known.get(pid, TaskTrace())
        if request is None or str(request.id) == known.task_id:
            return known
        return TaskTrace(str(request.id), message_span(request.request_dict))


def message_span(headers: dict[str, Any]) -> bytes:
    """The span that a message names in its headers, where that is sampled.

    By the propagators that are set for the process (``OTEL_PROPAGATORS``).
    """
    try:
        span = trace.get_current_span(propagate.extract(headers, Context()))
        context = span.get_span_context()
        return span_bytes(span) if context.is_valid and context.trace_flags.sampled else NO_SPAN
    except Exception:
        # Headers are anybody's: what cannot be understood is no trace.
        logger.debug("otel_celery_memory: trace context not understood", exc_info=True)
        return NO_SPAN
