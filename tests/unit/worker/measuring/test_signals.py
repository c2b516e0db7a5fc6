"""Receivers in the right place of Celery's signals, and none left when they are taken away."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals
from celery.app.trace import build_tracer
from celery.utils.dispatch import Signal

from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.measuring.signals import TaskSignals, connect, disconnect
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.measuring.task_recorder import TaskRecorder
from tests.unit.fakes import ListSink
from tests.unit.worker.recording import Recording

calls: list[Any] = []


class NotingRecorder(TaskRecorder):
    """Notes when it is called, and with what."""

    def prerun(self, task_id: str = "", task: Any = None, *_: Any, **__: Any) -> None:
        calls.append(("prerun", task_id, task.name))

    def postrun(
        self, task_id: str = "", task: Any = None, state: str | None = None, *_: Any, **__: Any
    ) -> None:
        calls.append(("postrun", task_id, task.name, state))

    def task_init(self, task: Any) -> None:
        calls.append(("task_init", task.name))


def stranger(**_: object) -> None:
    calls.append("stranger")


def our_receiver(**_: object) -> None:
    calls.append("ours")


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("signals", broker="memory://", set_as_current=False)
    yield made
    made.close()


@pytest.fixture
def ours() -> Iterator[TaskSignals]:
    made = TaskSignals(NotingRecorder(ListSink(), Settings(), TaskSpans(), ControlPage()))
    yield made
    made.disconnect()


def run(app: Celery, name: str = "app.add") -> str:
    """Run a task as a worker's child does; its id."""

    @app.task(name=name, shared=False)  # type: ignore[untyped-decorator]
    def add(a: int, b: int) -> int:
        return a + b

    add.apply((1, 2), task_id="id-1", throw=True)
    return "id-1"


def test_a_run_calls_the_recorder_at_its_start_and_its_end(app: Celery, ours: TaskSignals) -> None:
    ours.connect()
    run(app)
    assert calls == [
        ("prerun", "id-1", "app.add"),
        ("postrun", "id-1", "app.add", "SUCCESS"),
    ]


@pytest.mark.parametrize("order", ["before", "after", "around"])
def test_at_the_end_ours_comes_first_whichever_was_connected_first(
    app: Celery, ours: TaskSignals, order: str
) -> None:
    def another(**_: object) -> None:
        calls.append("another")

    if order in ("before", "around"):
        signals.task_postrun.connect(stranger, weak=False)
    ours.connect()
    if order in ("after", "around"):
        signals.task_postrun.connect(another, weak=False)
    run(app)
    signals.task_postrun.disconnect(stranger)
    signals.task_postrun.disconnect(another)

    others = {"before": ["stranger"], "after": ["another"], "around": ["stranger", "another"]}
    assert calls[1:] == [("postrun", "id-1", "app.add", "SUCCESS"), *others[order]]


def test_at_the_start_ours_comes_in_its_turn(app: Celery, ours: TaskSignals) -> None:
    signals.task_prerun.connect(stranger, weak=False)
    ours.connect()
    run(app)
    signals.task_prerun.disconnect(stranger)
    assert calls[:2] == ["stranger", ("prerun", "id-1", "app.add")]


def test_connecting_twice_is_connecting_once(app: Celery, ours: TaskSignals) -> None:
    ours.connect()
    ours.connect()
    run(app)
    assert [call[0] for call in calls] == ["prerun", "postrun"]


def test_receivers_outlive_everybody_s_reference_to_them(app: Celery, ours: TaskSignals) -> None:
    ours.connect()
    gc.collect()
    run(app)
    assert len(calls) == 2


def test_disconnecting_leaves_none_and_the_others_in_their_order(
    app: Celery, ours: TaskSignals
) -> None:
    signals.task_postrun.connect(stranger, weak=False)
    before = list(signals.task_postrun.receivers)
    ours.connect()
    ours.disconnect()
    assert signals.task_postrun.receivers == before
    run(app)
    signals.task_postrun.disconnect(stranger)
    assert calls == ["stranger"]
    ours.disconnect()


def test_a_signal_that_names_no_task_is_no_task(recording: Recording) -> None:
    connected = TaskSignals(recording.recorder)
    connected.connect()
    signals.task_prerun.send(None, task_id="x")
    signals.task_postrun.send(None, task_id="x")
    connected.disconnect()
    # A failure would have opened the probes again.
    assert (recording.take(), len(recording.probes.opened)) == ([], 1)


def emptied(signal: Signal) -> list[Any]:
    """What a tracer sees of a signal whose only receiver was taken away and then died.

    Celery up to 5.6 makes a new list at the next connection, and the tracer keeps this one.
    """

    def passing(**_: object) -> None:
        """Dies with the function around it."""

    signal.connect(passing)
    signal.disconnect(passing)
    del passing
    gc.collect()
    seen: list[Any] = signal.receivers
    return seen


def test_a_list_that_tracers_saw_empty_is_not_empty_after_a_late_connection() -> None:
    for first in (False, True):
        signal = Signal(name="late")
        seen = emptied(signal)
        assert seen == []
        connect(signal, our_receiver, first=first)
        assert [entry[1] for entry in seen] == [our_receiver]
        assert [entry[1] for entry in signal.receivers] == [our_receiver]
        signal.send(None)
    assert calls == ["ours", "ours"]


def test_tracers_that_were_built_before_call_us_all_the_same(
    app: Celery, ours: TaskSignals
) -> None:
    @app.task(name="app.early", shared=False)  # type: ignore[untyped-decorator]
    def early() -> None:
        """Its tracer is built while nobody listens."""

    for signal in (signals.task_prerun, signals.task_postrun):
        emptied(signal)
    tracer = build_tracer("app.early", early, app=app)
    ours.connect()
    tracer("id-2", (), {}, {})
    assert [call[:2] for call in calls] == [("prerun", "id-2"), ("postrun", "id-2")]


def test_a_connected_receiver_is_called_once_and_a_disconnected_one_never() -> None:
    signal = Signal(name="own")
    connect(signal, our_receiver)
    signal.send(None)
    disconnect(signal, our_receiver)
    disconnect(signal, our_receiver)
    signal.send(None)
    assert (calls, signal.receivers) == (["ours"], [])


def test_the_loader_s_hook_calls_us_after_all_receivers_and_the_loader_s_own_after_us(
    app: Celery,
) -> None:
    def theirs(task_id: str, task: Any) -> None:
        calls.append(("loader's", task_id, task.name))

    app.loader.on_task_init = theirs
    recorder = NotingRecorder(ListSink(), Settings(), TaskSpans(), ControlPage())
    ours = TaskSignals(recorder, app.loader)
    ours.connect()
    signals.task_prerun.connect(stranger)
    try:
        run(app)
        name = "app.add"
        in_between = ["stranger", ("task_init", name), ("loader's", "id-1", name)]
        assert calls == [
            ("prerun", "id-1", name),
            *in_between,
            ("postrun", "id-1", name, "SUCCESS"),
        ]
    finally:
        signals.task_prerun.disconnect(stranger)
        ours.disconnect()
    assert app.loader.on_task_init is theirs


def test_of_a_loader_nothing_of_ours_is_left_and_tracers_that_have_our_hook_call_the_loader_s(
    app: Celery,
) -> None:
    recorder = NotingRecorder(ListSink(), Settings(), TaskSpans(), ControlPage())
    ours = TaskSignals(recorder, app.loader)
    ours.connect()
    kept = app.loader.on_task_init
    ours.disconnect()
    assert "on_task_init" not in vars(app.loader)
    assert kept("id-1", None) is None
    assert calls == []
