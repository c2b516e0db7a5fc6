"""A reporter's loop in a thread, on rings of its own, with real processes to watch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from selectors import DefaultSelector
from threading import Thread
from typing import Any

from otel_celery_memory.circuit_breaker import CircuitBreaker
from otel_celery_memory.ipc.journal import Journal
from otel_celery_memory.ipc.records import Goodbye, Record, TaskStarted
from otel_celery_memory.reporter.descendants import Descendants
from otel_celery_memory.reporter.limits import LimitUsage, LimitWatcher
from otel_celery_memory.reporter.losses import Losses
from otel_celery_memory.reporter.process_watcher import ProcessWatcher
from otel_celery_memory.reporter.service import INDISPENSABLE, RecordReader, ReporterService
from otel_celery_memory.reporter.state.exits import ProcessEnd
from otel_celery_memory.reporter.state.worker_state import InFlightTasks, WorkerState
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.processes import wait_until
from tests.unit.fakes import FakeInFlightTable


@dataclass
class RecordingEmitter:
    """Keeps the state as the real emitter does, and records its calls."""

    state: WorkerState = field(default_factory=WorkerState)
    records: list[Record] = field(default_factory=list)
    ends: list[ProcessEnd] = field(default_factory=list)
    intervals: list[float] = field(default_factory=list)
    losses: Losses = field(default_factory=Losses)

    def apply(self, record: Record) -> None:
        self.records.append(record)
        self.state.apply(record)

    def task_in_flight(self, record: TaskStarted) -> None:
        self.state.apply_in_flight(record)

    def ended(self, end: ProcessEnd) -> None:
        self.ends.append(end)

    def exit_acknowledged(self, pid: int) -> None:
        self.state.discard(pid)

    def emit_sites(self, interval_s: float, now_ns: int) -> None:
        self.intervals.append(interval_s)

    def exits(self) -> list[tuple[int | None, str, int | None, str | None]]:
        """Slot, reason, signal and task of each end."""
        return [
            (end.process.slot, end.reason.value, end.signal, end.task.task if end.task else None)
            for end in self.ends
        ]


@dataclass
class RecordingInspector:
    """Records its calls."""

    done: list[str] = field(default_factory=list)

    def tick(self) -> None:
        self.done.append("tick")

    def ranked(self) -> None:
        self.done.append("ranked")

    def finish(self) -> None:
        self.done.append("finish")


@dataclass
class RecordingLeakWatch:
    """Records what it is given."""

    records: list[Record] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    ticks: int = 0

    def apply(self, record: Record) -> None:
        self.records.append(record)

    def process_gone(self, pid: int) -> None:
        self.gone.append(pid)

    def tick(self) -> None:
        self.ticks += 1


class Process:
    """A process that stands for one of the worker's."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        self._popen = subprocess.Popen(command)
        self.pid = self._popen.pid

    def kill(self) -> None:
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()


class Reporter:
    """A service in a thread, on rings of its own."""

    def __init__(
        self,
        main_pid: int,
        clock: Callable[[], float] | None = None,
        unacknowledged: Sequence[Record] = (),
        acknowledged_exits: Sequence[int] = (),
    ) -> None:
        self.main_pid = main_pid
        self.writer = RecordWriter()
        self.emitter = RecordingEmitter()
        if unacknowledged:
            self.send(*unacknowledged)
            before = self._reader()
            before.read()
            before.close()
        self.reader = self._reader()
        self.selector = DefaultSelector()
        self.watch = ProcessWatcher(self.selector)
        emitter: Any = self.emitter
        options: dict[str, Any] = {} if clock is None else {"clock_s": clock}
        # No limits: a /proc and a cgroup mount that are not there.
        nowhere = Path("/nonexistent")
        self.limit_watcher = LimitWatcher(
            self.watch.sizes,
            LimitUsage(os.getpid(), None, nowhere, nowhere),
            emitter,
            lambda: None,
            lambda: None,
            **options,
        )
        self.inspector = RecordingInspector()
        inspector: Any = self.inspector
        self.leak_watch = RecordingLeakWatch()
        leak_watch: Any = self.leak_watch
        self.damaged: list[int] = []
        self.places = FakeInFlightTable()
        self.in_flight = self.places.by_slot
        self.oom_kills: int | None = None
        self.sent: list[int] = []
        self.beats: list[bool] = []
        self.breaker = CircuitBreaker(INDISPENSABLE)
        self.service = ReporterService(
            self.reader,
            main_pid,
            emitter,
            self.watch,
            self.limit_watcher,
            inspector,
            self.selector,
            60.0,
            self.damaged.append,
            InFlightTasks(self.places, emitter),
            Descendants(emitter, main_pid, nowhere),
            leak_watch,
            lambda: self.oom_kills,
            lambda: self.sent.append(len(self.emitter.ends)),
            self.breaker,
            lambda: self.beats.append(True),
            **options,
        )
        if unacknowledged:
            self.service.resume(acknowledged_exits)
        self.thread = Thread(target=self.service.run, daemon=True)
        self.thread.start()

    def send(self, *records: Record) -> None:
        for record in records:
            assert self.writer.send(record)

    def _reader(self) -> RecordReader:
        *_, journal = self.writer.descriptors()
        return RecordReader(
            self.writer.page.rings_used, self.writer.rings.map_ring, Journal(journal)
        )

    def wait_for(self, record: Record) -> None:
        """Returns when a record was applied."""
        wait_until("the record is applied", lambda: record in self.emitter.records, 30)

    def end(self) -> None:
        """Let it run to its end."""
        self.thread.join(30)
        assert not self.thread.is_alive()

    def close(self) -> None:
        if self.thread.is_alive():
            self.send(Goodbye(self.main_pid, 0))
        self.end()
        for pid in list(self.watch._pidfds):
            self.watch.drop(pid)
        self.selector.close()
        self.reader.close()
        self.writer.close()
