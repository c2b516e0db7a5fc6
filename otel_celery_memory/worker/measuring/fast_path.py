"""The short way through a plain run: measured and told in two functions with little in them.

Beside a real task, whose data fills the processor's caches, what Python code costs is how much
*different* code runs: the general way through `TaskRecorder`, `TaskMeasurement` and `PipeWriter`
took 35 us a task there, this takes half of it, for the same numbers. It is for children of the
pool, which run one task at a time. Whatever is not plain — an eager task inside the task, a run
that is traced, a failure — is left to the general way, which takes over where this has got to.

A start is not sent: its frame is held in the control page (`in_flight.py`), and what it says of the
task before goes with the end's frame. One frame a task goes through the pipe.
"""

from __future__ import annotations

import contextlib
import os
from threading import get_ident
from time import time_ns
from tracemalloc import is_tracing
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.codec import (
    ABSENT,
    FINISHED,
    STARTED,
    encode,
    finished_record,
    plain_frame,
)
from otel_celery_memory.ipc.control_page import IDLE, IN_FLIGHT_BYTES, UNKNOWN
from otel_celery_memory.ipc.records import NO_SPAN, TERMINATED, TaskStarted
from otel_celery_memory.probes.descriptors import write
from otel_celery_memory.probes.own_memory import PAGE_BYTES, LinuxProcessProbe, ProcessProbe
from otel_celery_memory.worker.measuring.in_flight import InFlightSlot
from otel_celery_memory.worker.measuring.spans import ContainedSpans, span_bytes
from otel_celery_memory.worker.measuring.task_measurement import TaskMeasurement
from otel_celery_memory.worker.tracing.allocation_tracer import AllocationTracer

with contextlib.suppress(ImportError):  # Windows, where there is no fast path
    from os import pread
    from resource import RUSAGE_SELF, getrusage


class FastPath:
    """Plain runs of one child of the pool."""

    def __init__(
        self,
        in_flight: InFlightSlot,
        probe: LinuxProcessProbe,
        measurement: TaskMeasurement,
        tracing: AllocationTracer | None,
        spans: ContainedSpans,
    ) -> None:
        self._pipe = in_flight.pipe
        self._statm, self._clear_refs = probe.statm, probe.clear_refs
        self._measurement = measurement
        self._tracing = tracing
        self._spans = spans
        self._pid = os.getpid()
        self._in_flight = in_flight
        self._map, self._at = in_flight.place
        self._task_id = ""
        self._thread = 0
        self._task = ""
        self._started_ns = 0
        self._rss_bytes = 0
        self._retained_bytes = ABSENT
        self._previous = ""

    def starts(self, task_id: str, task: Any) -> bool:
        """A task starts. ``False`` where it is not plain: nothing has been done for it then."""
        if self._task_id:
            self._leave(bool(task.request.is_eager))
            return False
        name, tracing = task.name, self._tracing
        if (
            self._measurement.runs
            or task_id.__class__ is not str
            or is_tracing()
            or (
                tracing is not None
                and (self._map[:8] != tracing.seen or not tracing.tasks.passes(name, task_id))
            )
        ):
            return False
        now_ns = time_ns()
        rss_bytes = int(pread(self._statm, 128, 0).split(None, 2)[1]) * PAGE_BYTES
        before = self._measurement.previous
        previous, retained_bytes = (
            ("", ABSENT) if not before else (before[0], rss_bytes - before[1])
        )
        frame = plain_frame(
            STARTED,
            (self._pid, now_ns, rss_bytes, retained_bytes, 0),
            f"{task_id}\0{name}\0{previous}",
        )
        if frame is None or len(frame) > IN_FLIGHT_BYTES:
            return False
        # First what its end needs: a time limit may strike between any two lines.
        self._task, self._started_ns, self._rss_bytes = name, now_ns, rss_bytes
        self._thread = get_ident()
        self._retained_bytes, self._previous = retained_bytes, previous
        self._task_id = task_id
        self._measurement.previous = None
        self._map[self._at : self._at + len(frame)] = frame
        write(self._clear_refs, b"5")
        return True

    def ends(self, task_id: str, task: Any, state: str | None) -> int:
        """A task ends: when, in nanoseconds; 0 where it is not one that began here."""
        if self._task_id != task_id or not task_id:
            return 0
        rss_bytes = int(pread(self._statm, 128, 0).split(None, 2)[1]) * PAGE_BYTES
        peak_bytes = getrusage(RUSAGE_SELF).ru_maxrss * 1024
        try:
            span, own = self._spans.search(task, self._started_ns)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            span, own = self._spans.failed()
        now_ns, start_bytes = time_ns(), self._rss_bytes
        numbers = (
            self._pid,
            now_ns,
            self._started_ns,
            start_bytes,
            rss_bytes - start_bytes,
            (peak_bytes if peak_bytes > rss_bytes else rss_bytes) - start_bytes,
            ABSENT,
            ABSENT,
            self._retained_bytes,
            1,
            0,
            NO_SPAN if span is None else span_bytes(span),
        )
        text = f"{task_id}\0{self._task}\0{state or TERMINATED}\0{self._previous}"
        frame = plain_frame(FINISHED, numbers, text)
        self._pipe.send_frame(encode(finished_record(numbers, text)) if frame is None else frame)
        # One that was ended by its process's signal may be asked for with the process's end.
        self._map[self._at] = IDLE if state else UNKNOWN
        self._measurement.previous = (self._task, start_bytes)
        self._task_id = ""
        if span is not None:
            self._spans.write(span, own, finished_record(numbers, text))
        if self._tracing is not None:
            self._tracing.tasks.passed()
        return now_ns

    def _leave(self, nested_starts: bool) -> None:
        """The general way goes on with the run that began here, if it goes on."""
        task_id, retained = self._task_id, self._retained_bytes
        if not nested_starts:
            self._task_id = ""
            self._in_flight.give_up()
            return
        # A time limit may strike between any two lines: one of both ways knows the run.
        self._measurement.adopt(
            task_id, self._task, self._started_ns, self._rss_bytes, self._thread
        )
        self._task_id = ""
        started = TaskStarted(
            self._pid,
            self._started_ns,
            self._rss_bytes,
            None if retained == ABSENT else retained,
            0,
            task_id,
            self._task,
            self._previous,
        )
        self._in_flight.send(started)


def open_fast_path(
    in_flight: InFlightSlot | None,
    probe: ProcessProbe,
    measurement: TaskMeasurement,
    tracing: AllocationTracer | None,
    spans: ContainedSpans,
) -> FastPath | None:
    """That of a process that runs one task at a time and has a place of its own in the page."""
    if in_flight is not None and isinstance(probe, LinuxProcessProbe) and probe.peak_is_of_rusage:
        return FastPath(in_flight, probe, measurement, tracing, spans)
    return None
