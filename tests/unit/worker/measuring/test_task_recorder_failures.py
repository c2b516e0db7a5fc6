"""What fails in the recorder is logged once and switched off; the task and the rest go on."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory import circuit_breaker
from otel_celery_memory.ipc.records import PartFailed, TaskFinished, TaskStarted
from tests.unit.worker.recorder_bench import EAGER
from tests.unit.worker.recording import FailingMemory, FailingSpans, Recording


def test_descriptors_that_a_task_closed_are_opened_again_and_the_next_task_is_measured(
    recording: Recording, task: Any
) -> None:
    recording.probes.opened[0].__class__ = FailingMemory
    assert recording.run(task) == []
    assert len(recording.probes.opened) == 2
    # The old one's numbers may be somebody else's by now.
    assert not recording.probes.opened[0].closed
    assert [type(record) for record in recording.run(task)] == [TaskStarted, TaskFinished]


def test_a_probe_that_fails_again_and_again_is_switched_off_with_one_line(
    recording: Recording, task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        recording.probes.opened[-1].__class__ = FailingMemory
        recording.run(task)
    assert len(recording.probes.opened) == 4
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.ERROR, "otel_celery_memory: measurement failed and is switched off")
    ]


def failed(records: list[Any]) -> list[tuple[int, str]]:
    """Slot and part of each failure among these."""
    return [(each.slot, each.part) for each in records if isinstance(each, PartFailed)]


def test_what_is_switched_off_is_told_at_once_and_by_a_fork_s_child_again(task: Any) -> None:
    recording = Recording(FailingSpans())
    recording.recorder.begin(0)
    assert failed(recording.take()) == []
    assert failed(recording.run(task)) == [(0, "spans")]
    assert failed(recording.run(task)) == []
    recording.recorder.begin(3)
    assert failed(recording.take()) == [(3, "spans")]


def test_what_is_switched_off_is_told_again_to_a_reporter_that_may_be_a_new_one(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(FailingSpans())
    recording.recorder.begin(0)
    recording.run(task)
    monkeypatch.setattr(circuit_breaker, "REPORT_AGAIN_S", -1.0)
    recording.recorder._heap.due_ns = 0
    assert failed(recording.run(task)) == [(0, "spans")]


def test_spans_that_fail_are_switched_off_with_one_line_and_the_records_go_on(
    task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording(FailingSpans())
    recording.recorder.begin(0)
    recording.take()
    for _ in range(3):
        told = [type(record) for record in recording.run(task)]
        assert [each for each in told if each is not PartFailed] == [TaskStarted, TaskFinished]
    assert [r.getMessage() for r in caplog.records] == [
        "otel_celery_memory: spans failed and is switched off"
    ]


@pytest.fixture
def soft_limit() -> Iterator[None]:
    """The handler that billiard has in a child of the pool."""

    def handler(*_: object) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


def struck(recording: Recording, task: Any) -> None:
    """The soft time limit strikes while our code runs at the start of a task."""
    failing = FailingMemory()
    failing.error = SoftTimeLimitExceeded()
    recording.recorder._measurement._probe = failing  # type: ignore[union-attr]
    recording.recorder.prerun("a", task)


def test_a_soft_time_limit_that_strikes_in_our_code_is_raised_again_in_the_task(
    recording: Recording, task: Any, soft_limit: None
) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        struck(recording, task)
        time.sleep(20)


def test_one_that_is_lost_in_a_slow_receiver_of_the_user_s_is_raised_where_the_task_s_code_begins(
    recording: Recording, task: Any, soft_limit: None
) -> None:
    struck(recording, task)
    with contextlib.suppress(SoftTimeLimitExceeded):  # Celery logs what a receiver raises
        time.sleep(0.05)
    with pytest.raises(SoftTimeLimitExceeded):
        recording.recorder.task_init(task)
        time.sleep(20)
    recording.recorder.task_init(task)  # of one inside it
    time.sleep(0.05)


def test_a_soft_time_limit_is_not_raised_again_when_the_task_is_over(
    recording: Recording, task: Any, soft_limit: None
) -> None:
    struck(recording, task)
    recording.recorder.postrun("a", task, "SUCCESS")
    time.sleep(0.05)  # long past the time of the timer


def test_one_that_strikes_at_the_end_of_a_task_inside_another_is_raised_again_in_that(
    recording: Recording, task: Any, soft_limit: None
) -> None:
    recording.recorder.prerun("outer", task)
    recording.recorder.prerun("inner", EAGER)
    failing = FailingMemory()
    failing.error = SoftTimeLimitExceeded()
    recording.recorder._measurement._probe = failing  # type: ignore[union-attr]
    # All in one block: on a busy machine the timer may be the first to go on.
    with pytest.raises(SoftTimeLimitExceeded):
        recording.recorder.postrun("inner", EAGER, "SUCCESS")
        time.sleep(20)
    recording.recorder.postrun("outer", task, "FAILURE")


def test_one_that_struck_inside_is_raised_though_what_ran_inside_has_ended(
    recording: Recording, task: Any, soft_limit: None
) -> None:
    recording.recorder.prerun("outer", task)
    with pytest.raises(SoftTimeLimitExceeded):
        struck(recording, EAGER)
        recording.recorder.postrun("a", EAGER, "SUCCESS")
        time.sleep(20)


def test_without_billiards_handler_no_signal_is_sent(recording: Recording, task: Any) -> None:
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    struck(recording, task)
    time.sleep(0.05)  # long past the time of the timer
    # Still here.
