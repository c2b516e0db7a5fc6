"""When a child says in the control page that all that it ran has ended, and when it does not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from tests.unit.fakes import FakeMemory
from tests.unit.forks import in_a_fork
from tests.unit.worker.recorder_bench import EAGER, SLOT, Child, begin_the_general_way

Begin = Callable[[Child, Any, str], None]


def begin_plain(child: Child, task: Any, task_id: str) -> None:
    child.recorder.prerun(task_id, task)


def strike(*_: object) -> None:
    raise SoftTimeLimitExceeded


BOTH_WAYS = pytest.mark.parametrize("begin", [begin_plain, begin_the_general_way])


@BOTH_WAYS
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["app.task", "app." + "n" * 600])
def test_a_child_says_that_it_runs_nothing_but_not_while_it_runs_a_task(
    child: Child, name: str, inside: bool, begin: Begin
) -> None:
    task = SimpleNamespace(name=name, request=SimpleNamespace(is_eager=False))
    for _ in range(2):
        assert child.idle()
        begin(child, task, "a")
        assert not child.idle()
        if inside:
            child.recorder.prerun("inside", EAGER)
            child.recorder.postrun("inside", EAGER, "SUCCESS")
            assert not child.idle()
        child.recorder.postrun("a", task, "SUCCESS")
    assert child.idle()


def test_nor_where_the_task_has_a_name_that_cannot_be_told(child: Child, task: Any) -> None:
    nameless: Any = SimpleNamespace(name=7, request=SimpleNamespace(is_eager=False))
    child.run(task)
    begin_the_general_way(child, nameless, "a")
    assert not child.idle()


def test_it_says_nothing_for_another_process(child: Child) -> None:
    assert not child.pipe.page.idle(SLOT, os.getpid() + 1)


@BOTH_WAYS
def test_a_task_that_its_process_s_signal_ended_is_not_said_to_have_ended(
    child: Child, task: Any, begin: Begin
) -> None:
    begin(child, task, "a")
    child.recorder.postrun("a", task, None)
    assert (child.held(), child.idle()) == ([], False)
    child.run(task)
    assert child.idle()


def test_while_a_thread_that_a_task_left_behind_runs_another_nothing_is_said(
    child: Child, task: Any
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def linger() -> None:
        child.recorder.prerun("inside", EAGER)
        begun.set()
        let_go.wait(10)
        child.recorder.postrun("inside", EAGER, "SUCCESS")

    child.recorder.prerun("a", task)
    thread = threading.Thread(target=linger)
    thread.start()
    begun.wait(10)
    child.recorder.postrun("a", task, "SUCCESS")
    assert (child.held(), child.idle()) == ([], False)
    child.recorder.prerun("b", task)
    let_go.set()
    thread.join()
    assert (child.held_ids(), child.idle()) == (["b"], False)
    child.recorder.postrun("b", task, "SUCCESS")
    assert child.idle()


@BOTH_WAYS
def test_a_time_limit_that_strikes_as_a_task_begins_leaves_it_unsaid(
    child: Child, task: Any, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurement: Any = child.recorder._measurement
    with monkeypatch.context() as struck:
        struck.setattr(type(measurement._probe), "rss_bytes", strike)
        # It would be raised once more, in the task.
        struck.setattr(child.recorder._soft_limit, "hit", lambda **_: None)
        begin(child, task, "a")
    assert not child.idle()


@BOTH_WAYS
def test_the_end_of_a_task_that_a_time_limit_kept_from_being_told_is_counted_as_dropped(
    child: Child, task: Any, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(child, task, "a")
    spans: Any = child.recorder._spans
    with monkeypatch.context() as struck:
        struck.setattr(spans, "search", strike)
        child.recorder.postrun("a", task, "SUCCESS")
    assert child.pipe.page.drop_counters.counts().task_ends == 1
    assert (child.held(), child.idle()) == ([], False)


def test_a_child_that_measures_no_more_does_not_say_that_it_runs_nothing(
    child: Child, task: Any
) -> None:
    child.recorder.prerun("a", task)
    child.recorder.stop_tracing()
    assert (child.held(), child.idle()) == ([], False)


def failing(*_: object) -> Any:
    raise OSError


def probes_fail_in_a_task(recorder: Any) -> None:
    recorder.prerun("inside", EAGER)
    recorder._measurement._probe.rss_bytes = failing
    recorder.postrun("inside", EAGER, "SUCCESS")


def probes_cannot_be_opened(recorder: Any) -> None:
    recorder._open_probe = failing


@pytest.mark.parametrize("spoil", [probes_fail_in_a_task, probes_cannot_be_opened])
def test_a_fork_whose_probes_fail_leaves_its_parent_s_place_alone(
    task: Any, spoil: Callable[[Any], None]
) -> None:
    child = Child(tracing="off", probe=FakeMemory())

    def run_others() -> None:
        spoil(child.recorder)
        for _ in range(2):
            child.recorder.prerun("inside", EAGER)
            child.recorder.postrun("inside", EAGER, "SUCCESS")

    child.recorder.prerun("a", task)
    in_a_fork(run_others)
    assert child.held_ids() == ["a"]
    child.close()
