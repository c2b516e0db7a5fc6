"""Which process receives commands and signals, and which one captures."""

from __future__ import annotations

import _thread
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.probes import urgent_signal
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.record_writer import RecordWriter
from otel_celery_memory.worker.remote_control import commands
from otel_celery_memory.worker.remote_control.requests import (
    ChildRequests,
    OwnRequests,
    WorkerRequests,
)
from tests.processes import wait_until


class Tracing:
    """Counts its captures."""

    def __init__(self) -> None:
        self.captures = 0

    def capture_now(self) -> None:
        self.captures += 1


class Worker:
    """A main process, with children 7 and 8; or, with `tracing`, one that runs the tasks."""

    def __init__(self, pipe: RecordWriter, tracing: Tracing | None, *, by_signal: bool) -> None:
        self.pipe, self.tracing = pipe, tracing
        self.running = True
        fake: Any = self
        settings = Settings(capture_signal=by_signal)
        self.requests = WorkerRequests(settings, pipe, self.children, lambda: self.running)
        self.requests.attach(fake)

    def children(self) -> list[tuple[int, int]]:
        return [(7, 0), (8, 1)]

    def switched_off(self) -> list[str]:
        return ["heap"]


@pytest.fixture
def pipe() -> Iterator[RecordWriter]:
    urgent_signal.release()
    threads = _thread._count()
    made = RecordWriter()
    yield made
    wait_until("threads of signals are gone", lambda: _thread._count() <= threads, 30)
    made.close()
    commands.detach()
    urgent_signal.release()
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pids to which signals are sent."""
    pids: list[int] = []
    monkeypatch.setattr(urgent_signal, "send", pids.extend)
    return pids


def test_a_main_process_that_runs_tasks_captures_itself(
    pipe: RecordWriter, sent: list[int]
) -> None:
    tracing = Tracing()
    Worker(pipe, tracing, by_signal=True)
    assert "ok" in commands.memory_capture(None)
    assert (tracing.captures, sent) == (1, [])


@pytest.mark.parametrize(("by_signal", "pids"), [(True, [7, 8]), (False, [])])
def test_children_are_signalled_only_if_the_setting_is_on(
    pipe: RecordWriter, sent: list[int], by_signal: bool, pids: list[int]
) -> None:
    Worker(pipe, None, by_signal=by_signal)
    assert "ok" in commands.memory_capture(None)
    assert sent == pids
    assert callable(signal.getsignal(signal.SIGURG)) is by_signal


def test_a_signal_to_the_main_process_begins_a_capture_of_half_a_minute(
    pipe: RecordWriter, sent: list[int]
) -> None:
    Worker(pipe, None, by_signal=True)
    os.kill(os.getpid(), signal.SIGURG)
    wait_until("children are signalled", lambda: len(sent) == 2, 30)
    given = pipe.page.commands()
    assert (given.capture, given.runs, given.by_signal, sent) == (1, 0, True, [7, 8])


def test_a_refused_signal_is_logged(
    pipe: RecordWriter,
    sent: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker(pipe, None, by_signal=True)
    worker.running = False
    os.kill(os.getpid(), signal.SIGURG)
    wait_until("the refusal is logged", lambda: bool(caplog.records), 30)
    assert [r.getMessage() for r in caplog.records] == [
        "otel_celery_memory: SIGURG: the worker is shutting down"
    ]
    assert (pipe.page.commands(), sent) == (Commands(), [])


def test_the_view_is_the_reporter_s_with_what_only_the_worker_knows(pipe: RecordWriter) -> None:
    Worker(pipe, Tracing(), by_signal=False)
    assert "error" in commands.memory(None)
    pipe.status.write({"tasks": []})
    assert commands.memory(None)["memory"] == {"tasks": [], "main_pid": os.getpid()}


def test_a_worker_that_ended_answers_no_commands(pipe: RecordWriter) -> None:
    worker = Worker(pipe, Tracing(), by_signal=True)
    worker.requests.detach()
    assert "not ready yet" in commands.memory(None)["error"]
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL


class Child:
    """A child of the pool, with a main process of number 99."""

    def __init__(self, pipe: RecordWriter) -> None:
        self.tracing = Tracing()
        self.requests = ChildRequests(Settings(capture_signal=True), pipe.page, 99)
        fake: Any = self
        self.requests.attach(fake)


def test_a_child_does_not_answer_remote_control_that_it_inherited(pipe: RecordWriter) -> None:
    Worker(pipe, None, by_signal=False)
    Child(pipe)
    assert "not ready yet" in commands.memory(None)["error"]


def test_a_child_that_is_signalled_during_a_capture_captures_its_current_run(
    pipe: RecordWriter, sent: list[int]
) -> None:
    child = Child(pipe)
    pipe.page.set_commands(Commands("", 1, 0, True, time.monotonic() + 30, 1.0))
    os.kill(os.getpid(), signal.SIGURG)
    wait_until("it captures", lambda: child.tracing.captures == 1, 30)
    assert sent == []


def test_a_child_that_is_signalled_otherwise_signals_its_main_process(
    pipe: RecordWriter, sent: list[int]
) -> None:
    child = Child(pipe)
    pipe.page.set_commands(Commands("", 1, 0, True, time.monotonic() - 1, 1.0))
    os.kill(os.getpid(), signal.SIGURG)
    wait_until("the main process is signalled", lambda: sent == [99], 30)
    assert child.tracing.captures == 0


def test_a_process_that_answers_for_itself_is_asked_and_shown_whole(pipe: RecordWriter) -> None:
    child = Child(pipe)
    own = OwnRequests(Settings(), pipe.page, lambda: {"tasks": []})
    recorder: Any = Recording(child.tracing)
    own.attach(recorder)
    assert "ok" in commands.memory_capture(None)
    assert child.tracing.captures == 1
    assert commands.memory(None)["memory"] == {"tasks": [], "main_pid": os.getpid()}
    own.detach()
    assert "not ready yet" in commands.memory(None)["error"]


class Recording:
    """The recorder of a process that answers for itself."""

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing

    def switched_off(self) -> list[str]:
        return []


def test_a_suspicion_orders_one_census_of_its_task(pipe: RecordWriter, sent: list[int]) -> None:
    worker = Worker(pipe, None, by_signal=False)
    worker.requests.confirm_suspicion()
    assert pipe.page.commands().census == 0
    pipe.page.suspect.write("shop.tasks.import_feed")
    for _ in range(3):
        worker.requests.confirm_suspicion()
    ordered = pipe.page.commands()
    assert (ordered.census, ordered.task) == (1, "shop.tasks.import_feed")
    assert ordered.allowance_s == Settings().max_added_latency


def test_while_somebody_takes_a_capture_no_suspicion_is_confirmed(
    pipe: RecordWriter, sent: list[int]
) -> None:
    worker = Worker(pipe, None, by_signal=False)
    pipe.page.set_commands(Commands(capture=1, runs=5, until_s=time.monotonic() + 60))
    pipe.page.suspect.write("t")
    worker.requests.confirm_suspicion()
    assert (pipe.page.commands().capture, pipe.page.commands().census) == (1, 0)
