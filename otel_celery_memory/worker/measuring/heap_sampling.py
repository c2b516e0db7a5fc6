"""Samples of a process's heap, behind a task now and then."""

from __future__ import annotations

import time

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.circuit_breaker import Switches
from otel_celery_memory.ipc.records import HeapSampled
from otel_celery_memory.probes.allocators import read_heap
from otel_celery_memory.worker.pipe import Sink
from otel_celery_memory.worker.tracing.allocation_tracer import SiteTracing

_COST_FACTOR = 200
"""Reading the heap may take at most a two-hundredth of the time between two readings."""
_TELL_INTERVAL_NS = 30 * 10**9


class HeapSampling:
    """Sends a sample at most every ``interval_s``, and keeps what tracing earned meanwhile."""

    def __init__(self, sink: Sink, interval_s: float, switches: Switches) -> None:
        self._sink = sink
        self._interval_ns = int(interval_s * 1e9)
        self._switches = switches
        self.due_ns = 0
        """When the next sample is to be taken; compared behind every task."""

    def sample(self, pid: int, now_ns: int, tracing: SiteTracing | None) -> None:
        """Take a sample, where that has not failed, and tell of what has."""
        self._switches.tell_again()
        if self._switches.is_off("heap"):
            self.due_ns = now_ns + max(self._interval_ns, _TELL_INTERVAL_NS)
            return
        try:
            began_ns = time.perf_counter_ns()
            heap = read_heap()
            if tracing is not None:
                tracing.tasks.settle()
            cost_ns = time.perf_counter_ns() - began_ns
            self.due_ns = now_ns + max(self._interval_ns, cost_ns * _COST_FACTOR)
            self._sink.send(
                HeapSampled(
                    pid, now_ns, heap.blocks, heap.malloc_used_bytes, heap.malloc_free_bytes
                )
            )
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            self.due_ns = now_ns + _TELL_INTERVAL_NS
            self._switches.switch_off("heap")
