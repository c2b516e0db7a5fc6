"""Looks at the worker's processes and limits, as often as it is needed, and tells of pressure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from otel_celery_memory.probes.procfs import ProcessSize
from otel_celery_memory.reporter.headroom import Headroom
from otel_celery_memory.reporter.pressure import LOOK_S, PressureGauge, Usage
from otel_celery_memory.reporter.state.worker_state import WorkerState

NOTE_S = 1.0
"""A file is renamed for each note."""


class PressureEmitter(Protocol):
    """Who is told of pressure."""

    state: WorkerState

    def pressed(self, usage: Usage, now_ns: int) -> None:
        """A limit is near."""


class Lookout:
    """Notes the size of each process in the state, and begins an episode of pressure."""

    def __init__(
        self,
        sizes: Callable[[], Mapping[int, ProcessSize]],
        headroom: Headroom,
        emitter: PressureEmitter,
        send_now: Callable[[], None],
        note: Callable[[], None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``send_now`` has what was emitted exported at once, and does not wait for that;
        ``note`` writes down what is known, for those who come after all of us."""
        self._sizes = sizes
        self._headroom = headroom
        self._emitter = emitter
        self._send_now = send_now
        self._note = note
        self._clock_s = clock_s
        self._gauge = PressureGauge()
        self.due_s = self._note_due_s = clock_s()
        self.usages: list[Usage] = []

    def look(self) -> None:
        """One look; `due_s` is when the next one is due."""
        began_s = self._clock_s()
        self.due_s = began_s + LOOK_S
        processes = self._emitter.state.processes
        try:
            sizes = self._sizes()
            for pid, size in sizes.items():
                if pid in processes:
                    processes[pid].saw_rss(size.rss_bytes)
            slots = {pid: process.slot for pid, process in processes.items()}
            self.usages = self._headroom.usages(sizes, slots)
            begun = self._gauge.begun(self.usages, began_s)
            for usage in begun:
                self._emitter.pressed(usage, time.time_ns())
            if begun:
                self._send_now()
            if begun or began_s >= self._note_due_s:
                self._note_due_s = began_s + NOTE_S
                self._note()
        finally:
            now_s = self._clock_s()
            self.due_s = now_s + self._gauge.next_look_s(self.usages, now_s, now_s - began_s)
