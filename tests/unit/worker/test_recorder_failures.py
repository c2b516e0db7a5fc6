"""What fails in the recorder is logged once and switched off; the task and the rest go on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.records import TaskFinished, TaskStarted
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
        (logging.ERROR, "otel_celery_memory: meter failed and is switched off")
    ]


def test_spans_that_fail_are_switched_off_with_one_line_and_the_records_go_on(
    task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording(FailingSpans())
    recording.recorder.begin(0)
    recording.take()
    for _ in range(3):
        assert [type(record) for record in recording.run(task)] == [TaskStarted, TaskFinished]
    assert [r.getMessage() for r in caplog.records] == [
        "otel_celery_memory: spans failed and is switched off"
    ]


def test_a_soft_time_limit_that_strikes_in_our_code_is_the_task_s(
    recording: Recording, task: Any
) -> None:
    failing = FailingMemory()
    failing.error = SoftTimeLimitExceeded()
    recording.recorder._meter._probe = failing  # type: ignore[union-attr]
    with pytest.raises(SoftTimeLimitExceeded):
        recording.recorder.prerun("a", task)
