"""Who hears of a capture: the process itself, or its children by a signal; who gives orders."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from otel_celery_memory.orders import Orders
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker import capture_signal, remote
from otel_celery_memory.worker.channel import Channel
from otel_celery_memory.worker.requests import WorkerRequests


class Tracing:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.captures = 0

    def capture_now(self) -> None:
        self.captures += 1


class Worker:
    """A main process, with children 7 and 8; or, with `tracing`, one that runs the tasks."""

    def __init__(self, channel: Channel, tracing: Tracing | None, *, by_signal: bool) -> None:
        self.channel, self.tracing = channel, tracing
        self.running = True
        fake: Any = self
        self.requests = WorkerRequests(
            Settings(capture_signal=by_signal), channel, fake, fake, lambda: self.running
        )
        self.requests.attach()

    def children(self) -> list[tuple[int, int]]:
        return [(7, 0), (8, 1)]

    def switched_off(self) -> list[str]:
        return ["heap"]


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = Channel()
    yield made
    made.close()
    remote.detach()
    capture_signal.release()
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """To whom signals are sent."""
    pids: list[int] = []
    monkeypatch.setattr(capture_signal, "send", pids.extend)
    return pids


def test_a_process_that_runs_tasks_is_asked_itself(channel: Channel, sent: list[int]) -> None:
    tracing = Tracing()
    Worker(channel, tracing, by_signal=True)
    assert "ok" in remote.memory_capture(None)
    assert (tracing.captures, sent) == (1, [])


@pytest.mark.parametrize(("by_signal", "pids"), [(True, [7, 8]), (False, [])])
def test_children_are_signalled_only_where_they_expect_it(
    channel: Channel, sent: list[int], by_signal: bool, pids: list[int]
) -> None:
    Worker(channel, None, by_signal=by_signal)
    assert "ok" in remote.memory_capture(None)
    assert sent == pids
    assert callable(signal.getsignal(signal.SIGURG)) is by_signal


def test_a_signal_to_the_main_process_orders_a_capture_of_half_a_minute(
    channel: Channel, sent: list[int]
) -> None:
    worker = Worker(channel, None, by_signal=True)
    worker.requests._capture_by_signal()
    orders = channel.page.orders()
    assert (orders.capture, orders.runs, orders.by_signal, sent) == (1, 0, True, [7, 8])


def test_a_signal_that_cannot_be_obeyed_is_told_in_the_log(
    channel: Channel, sent: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(channel, None, by_signal=True)
    worker.running = False
    worker.requests._capture_by_signal()
    assert [r.getMessage() for r in caplog.records] == [
        "otel_celery_memory: SIGURG: the worker is shutting down"
    ]
    assert (channel.page.orders(), sent) == (Orders(), [])


def test_the_view_is_the_reporter_s_with_what_only_the_worker_knows(channel: Channel) -> None:
    Worker(channel, Tracing(), by_signal=False)
    assert "error" in remote.memory(None)
    channel.status.write({"tasks": []})
    assert remote.memory(None)["memory"] == {
        "tasks": [],
        "main_pid": os.getpid(),
        "switched_off": ["heap"],
    }


def test_a_child_answers_no_remote_control_and_a_worker_that_ended_neither(
    channel: Channel,
) -> None:
    worker = Worker(channel, Tracing(), by_signal=True)
    worker.requests.child_up(os.getpid())
    assert "not up yet" in remote.memory(None)["error"]
    worker.requests.attach()
    worker.requests.detach()
    assert "not up yet" in remote.memory(None)["error"]
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
