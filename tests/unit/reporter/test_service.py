"""The reporter's loop on a real pipe with real processes, until the worker has ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from selectors import DefaultSelector
from threading import Thread
from typing import Any

import pytest

from otel_celery_memory.records import (
    MAIN_SLOT,
    Goodbye,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    Record,
    TaskStarted,
)
from otel_celery_memory.reporter.service import ReporterService
from otel_celery_memory.reporter.state import ProcessEnd, WorkerState
from otel_celery_memory.reporter.watch import ProcessWatch
from otel_celery_memory.wire import FrameDecoder, encode
from tests.processes import wait_until
from tests.unit.examples import started
from tests.unit.fakes import FakeClock


@dataclass
class NotingEmitter:
    """Keeps the state as the real emitter does, and notes what it is told."""

    state: WorkerState = field(default_factory=WorkerState)
    records: list[Record] = field(default_factory=list)
    ends: list[ProcessEnd] = field(default_factory=list)
    intervals: list[float] = field(default_factory=list)

    def apply(self, record: Record) -> None:
        self.records.append(record)
        self.state.apply(record)

    def ended(self, end: ProcessEnd) -> None:
        self.ends.append(end)

    def emit_sites(self, interval_s: float, now_ns: int) -> None:
        self.intervals.append(interval_s)

    def told(self) -> list[tuple[int, str, int | None, str | None]]:
        """Slot, reason, signal and task of each end."""
        return [
            (end.process.slot, end.reason.value, end.signal, end.task.task if end.task else None)
            for end in self.ends
        ]


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
    """A service in a thread, on a pipe of its own."""

    def __init__(self, main_pid: int, clock: Callable[[], float] | None = None) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        self.emitter = NotingEmitter()
        self.decoder = FrameDecoder()
        self.selector = DefaultSelector()
        self.watch = ProcessWatch(self.selector)
        emitter: Any = self.emitter
        options = {} if clock is None else {"clock_s": clock}
        self.service = ReporterService(
            self.read_fd,
            main_pid,
            self.decoder,
            emitter,
            self.watch,
            self.selector,
            60.0,
            **options,
        )
        self.thread = Thread(target=self.service.run)
        self.thread.start()

    def send(self, *records: Record) -> None:
        os.write(self.write_fd, b"".join(map(encode, records)))

    def wait_for(self, record: Record) -> None:
        """Return when a record has been taken in."""
        wait_until("the record is taken in", lambda: record in self.emitter.records, 30)

    def close_pipe(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def end(self) -> None:
        """Let it run to its end."""
        self.thread.join(30)
        assert not self.thread.is_alive()

    def close(self) -> None:
        self.close_pipe()
        self.end()
        for pid in list(self.watch._pidfds):
            self.watch.drop(pid)
        self.selector.close()
        os.close(self.read_fd)


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """A main process and a child."""
    made = [Process(), Process()]
    yield made
    for process in made:
        process.kill()


@pytest.fixture
def main(processes: list[Process]) -> Process:
    return processes[0]


@pytest.fixture
def child(processes: list[Process]) -> Process:
    return processes[1]


@pytest.fixture
def reporter(main: Process) -> Iterator[Reporter]:
    made = Reporter(main.pid)
    yield made
    made.close()


def task_of(process: Process) -> TaskStarted:
    return started(process.pid, "id-1")


def test_an_orderly_end_is_told_of_every_process(
    reporter: Reporter, main: Process, child: Process
) -> None:
    goodbye = ProcessDown(child.pid, 0, 0, 0, 1, None, "shutdown", "")
    reporter.send(ProcessUp(child.pid, 0, 0, 1), goodbye, Goodbye(main.pid, 0))
    reporter.close_pipe()
    reporter.end()
    assert reporter.emitter.told() == [
        (MAIN_SLOT, "shutdown", None, None),
        (0, "shutdown", None, None),
    ]
    assert len(reporter.emitter.intervals) == 1


def test_the_end_of_the_pipe_without_a_goodbye_is_the_loss_of_the_whole_worker(
    reporter: Reporter, child: Process
) -> None:
    reporter.send(ProcessUp(child.pid, 0, 0, 1), task_of(child))
    reporter.close_pipe()
    reporter.end()
    assert reporter.emitter.told() == [
        (MAIN_SLOT, "killed", None, None),
        (0, "killed", None, "app.task"),
    ]


def test_a_child_that_is_killed_is_told_with_its_task_while_the_worker_goes_on(
    reporter: Reporter, main: Process, child: Process
) -> None:
    reporter.send(ProcessUp(child.pid, 0, 0, 1), task_of(child))
    reporter.wait_for(task_of(child))
    child.kill()
    reporter.send(ProcessExited(child.pid, 0, -9))
    wait_until("the loss is told", lambda: reporter.emitter.ends, 30)
    assert reporter.emitter.told() == [(0, "killed", 9, "app.task")]
    reporter.send(Goodbye(main.pid, 0))
    reporter.close_pipe()
    reporter.end()
    assert reporter.emitter.told()[1:] == [(MAIN_SLOT, "shutdown", None, None)]


def test_what_a_process_wrote_before_it_died_is_read_before_its_death_is_noted(
    main: Process, child: Process
) -> None:
    child.kill()
    made = Reporter(main.pid)
    made.send(ProcessUp(child.pid, 0, 0, 1), task_of(child), Goodbye(main.pid, 0))
    made.close()
    assert made.emitter.told() == [
        (MAIN_SLOT, "shutdown", None, None),
        (0, "killed", None, "app.task"),
    ]


def test_a_pipe_that_somebody_holds_open_after_the_goodbye_is_not_waited_for(
    reporter: Reporter, main: Process
) -> None:
    reporter.send(Goodbye(main.pid, 0))
    reporter.end()
    assert reporter.emitter.told() == [(MAIN_SLOT, "shutdown", None, None)]


def test_a_pipe_that_somebody_holds_open_after_the_main_process_died_is_not_waited_for(
    reporter: Reporter, main: Process
) -> None:
    main.kill()
    reporter.end()
    assert reporter.emitter.told() == [(MAIN_SLOT, "killed", None, None)]


def test_garbage_in_the_pipe_is_counted_and_what_follows_is_read(
    reporter: Reporter, main: Process
) -> None:
    os.write(reporter.write_fd, b"garbage " * 1_000)
    reporter.send(Goodbye(main.pid, 0))
    reporter.end()
    assert reporter.decoder.bad_frames == 1
    assert Goodbye(main.pid, 0) in reporter.emitter.records


def test_a_flood_of_frames_does_not_keep_it_from_its_ticks(
    reporter: Reporter, main: Process, child: Process
) -> None:
    frames = encode(started(main.pid, "id-1", retained_bytes=1)) * 40
    assert len(frames) < select.PIPE_BUF
    stop: list[bool] = []

    def flood() -> None:
        while not stop:
            if select.select([], [reporter.write_fd], [], 0.1)[1]:
                os.write(reporter.write_fd, frames)

    writer = Thread(target=flood)
    writer.start()
    reporter.send(ProcessUp(child.pid, 0, 0, 1), ProcessExited(child.pid, 0, -9))
    child.kill()
    try:
        wait_until("the loss is told", lambda: reporter.emitter.ends, 30)
    finally:
        stop.append(True)
        writer.join()
    assert reporter.emitter.told() == [(0, "killed", 9, None)]


def test_the_memory_of_each_process_is_looked_at_from_outside(
    reporter: Reporter, child: Process
) -> None:
    reporter.send(ProcessUp(child.pid, 0, 0, 0))
    wait_until(
        "its RSS is known",
        lambda: getattr(reporter.emitter.state.processes.get(child.pid), "rss_bytes", None),
        30,
    )


def test_sites_are_ranked_at_every_interval_and_at_the_end(main: Process) -> None:
    clock = FakeClock(100.0)
    made = Reporter(main.pid, clock)
    for record in (started(main.pid, str(n)) for n in range(2)):
        clock.move(61.0)
        made.send(record)
        made.wait_for(record)
        wait_until("they are ranked", lambda: len(made.emitter.intervals), 30)
    clock.move(5.0)
    made.close()
    assert sum(made.emitter.intervals) == 127.0
    assert len(made.emitter.intervals) >= 2
