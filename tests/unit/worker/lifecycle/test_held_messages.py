"""Which messages the main process holds, from Celery's sets and from every kind of timer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.utils import timer2
from celery.worker import state
from celery.worker.request import Request
from kombu.asynchronous import timer as asynchronous

from otel_celery_memory.ipc.records import MessagesHeld
from otel_celery_memory.worker.lifecycle import held_messages
from otel_celery_memory.worker.lifecycle.held_messages import read_messages_held

Timer: Any = asynchronous.Timer
APP = Celery("held", set_as_current=False)


@APP.task(name="held.task")  # type: ignore[untyped-decorator]
def held_task() -> None:
    """Is never run."""


def request(number: int, body: Any = b"x" * 100) -> Request:
    """A message as a worker has received it."""
    message = SimpleNamespace(
        body=body,
        headers={"id": f"held-{number}", "task": "held.task"},
        properties={},
        delivery_info={},
        content_type="application/json",
        content_encoding="utf-8",
        payload=((), {}, {}),
    )
    return Request(
        message,
        app=APP,
        task=held_task,
        headers=message.headers,
        body=body,
        decoded=False,
    )


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    """Celery's sets are the process's."""
    state.reset_state()
    yield
    state.reset_state()


def held(timer: Any) -> tuple[int | None, ...]:
    """Active, reserved, scheduled, revoked, and the sizes of the first three."""
    found = read_messages_held(SimpleNamespace(timer=timer), os.getpid())
    assert isinstance(found, MessagesHeld)
    return tuple(found[2:])


def test_a_worker_without_messages_holds_none() -> None:
    assert held(Timer()) == (0, 0, 0, 0, 0, 0, 0)


def test_those_that_run_are_not_counted_as_waiting_for_a_process() -> None:
    requests = [request(number) for number in range(5)]
    for each in requests:
        state.reserved_requests.add(each)
    for each in requests[:2]:
        state.active_requests.add(each)
    state.revoked.add("held-7")
    assert held(Timer()) == (2, 3, 0, 1, 200, 300, 0)


class OfGreenlets(Timer):  # type: ignore[misc]
    """As gevent's and eventlet's: a set of greenlets, each with its entry."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: set[Any] = set()

    def _enter(self, eta: float, priority: int, entry: Any, **_: Any) -> Any:
        greenlet = Greenlet(entry)
        self._queue.add(greenlet)
        return greenlet


class Greenlet:
    """What such a timer has for each entry."""

    def __init__(self, entry: Any) -> None:
        self.entry = entry


class Threaded(timer2.Timer):  # type: ignore[misc]
    """A timer that is a thread, not started."""

    def ensure_started(self) -> None:
        """Nothing is due."""


@pytest.mark.parametrize("make", [Timer, Threaded, OfGreenlets])
def test_those_that_wait_for_their_time_are_counted_in_every_timer(make: Any) -> None:
    timer = make()
    requests = [request(number) for number in range(40)]
    for each in requests:
        timer.call_at(10**9, print, (each,), priority=6)
    timer.call_after(60, print)
    timer.call_after(60, print, ("not a request",))
    assert held(timer) == (0, 0, 40, 0, 0, 0, 4_000)


def test_of_very_many_some_are_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_messages, "_EXAMINED_MAX", 100)
    timer = Timer()
    waiting = request(0)
    for number in range(1_000):
        timer.call_at(10**9 + number, print, (waiting,))
    assert held(timer)[2] == 1_000


def test_a_timer_of_another_kind_leaves_its_number_out() -> None:
    assert held(object()) == (0, 0, None, 0, 0, 0, None)


def test_a_body_without_a_length_in_bytes_leaves_the_size_out() -> None:
    waiting = request(1, body=({}, [], None))
    state.reserved_requests.add(waiting)
    assert held(Timer()) == (0, 1, 0, 0, 0, None, 0)


def test_a_set_that_another_thread_changes_leaves_the_size_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Changing(set[Any]):
        def __iter__(self) -> Iterator[Any]:
            raise RuntimeError("Set changed size during iteration")

    monkeypatch.setattr(state, "reserved_requests", Changing([1, 2]))
    assert held(Timer()) == (0, 2, 0, 0, 0, None, 0)
