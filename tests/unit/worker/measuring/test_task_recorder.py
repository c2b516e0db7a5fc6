"""The recorder of one process: the right records in the right order, from up to down."""

from __future__ import annotations

import os
import sys
import tracemalloc
from typing import Any

import pytest

from otel_celery_memory.ipc.records import (
    HeapSampled,
    ProcessDown,
    ProcessUp,
    Site,
    SitesWindow,
    TaskFinished,
    TaskStarted,
)
from tests.unit.forks import in_a_fork
from tests.unit.worker.recording import Recording

RECYCLE = 155


def test_a_process_s_life_is_told_from_up_to_down(task: Any) -> None:
    recording = Recording()
    recording.recorder.begin(3)
    recording.recorder.prerun("a", task)
    recording.probes.opened[0].use(1_700)
    recording.recorder.postrun("a", task, "SUCCESS")
    recording.recorder.end(RECYCLE)
    up, started, finished, down = recording.take()
    assert up == ProcessUp(os.getpid(), up.time_ns, 3, 1_000)
    assert isinstance(started, TaskStarted)
    assert isinstance(finished, TaskFinished)
    assert (finished.task, finished.rss_delta_bytes, finished.state) == ("app.task", 700, "SUCCESS")
    assert down == ProcessDown(
        os.getpid(), down.time_ns, 3, RECYCLE, 1_700, 700, "max_tasks", "app.task"
    )


def test_a_task_that_ended_without_a_state_was_terminated(recording: Recording, task: Any) -> None:
    assert recording.run(task, state=None)[1].state == "TERMINATED"


def test_the_heap_is_sampled_behind_a_task_and_not_behind_every_one(task: Any) -> None:
    recording = Recording()
    recording.recorder.begin(0)
    for number in range(5):
        recording.recorder.prerun(str(number), task)
        recording.recorder.postrun(str(number), task, "SUCCESS")
    kinds = [type(record) for record in recording.sink.records]
    assert kinds[1:4] == [TaskStarted, TaskFinished, HeapSampled]
    assert kinds.count(HeapSampled) == 1


@pytest.mark.parametrize(
    ("exit_code", "limit_kib", "reason"),
    [
        (0, 0, "shutdown"),
        (-241, 1, "shutdown"),
        (RECYCLE, 0, "max_tasks"),
        (RECYCLE, 1, "max_memory"),
        (RECYCLE, 2, "max_tasks"),
    ],
)
def test_why_a_process_ends_follows_from_its_exit_code_and_what_billiard_compared(
    exit_code: int, limit_kib: int, reason: str
) -> None:
    recording = Recording()
    recording.recorder.max_memory_kib = limit_kib
    recording.recorder.begin(0)
    recording.probes.opened[0].use(2_000)
    recording.take()
    recording.recorder.end(exit_code)
    assert [record.reason for record in recording.take()] == [reason]


def test_an_end_without_a_beginning_or_in_another_process_is_not_told(recording: Recording) -> None:
    Recording().recorder.end(0)

    def end() -> None:
        recording.recorder.end(0)
        assert recording.take() == []

    in_a_fork(end)


def test_in_a_forked_child_the_probes_are_opened_anew(recording: Recording, task: Any) -> None:
    def run() -> None:
        started, _ = recording.run(task)
        assert (started.pid, started.retained_bytes) == (os.getpid(), None)

    recording.run(task)
    in_a_fork(run)


def test_after_a_stop_nothing_is_measured_and_nothing_is_open(
    recording: Recording, task: Any
) -> None:
    recording.recorder.stop_tracing()
    recording.recorder.stop()
    recording.recorder.stop_tracing()
    recording.recorder.stop()
    assert (recording.run(task), recording.probes.opened[0].closed) == ([], True)


def test_with_tracing_off_nothing_is_traced(recording: Recording, task: Any) -> None:
    assert not tracemalloc.is_tracing()
    assert recording.run(task)[1][6:8] == (None, None)


def test_with_tracing_always_every_task_has_traced_numbers_and_its_sites_are_told(
    task: Any,
) -> None:
    recording = Recording(tracing="always", sites_include=(__file__,))
    recording.recorder.begin(0)
    recording.recorder.prerun("a", task)
    kept = bytes(30_000_000)
    recording.recorder.postrun("a", task, "SUCCESS")
    recording.recorder.end(0)
    recording.recorder.stop_tracing()
    recording.recorder.stop()
    _, _, finished, window, site, *_ = recording.take()
    assert [round(size / 1_000_000) for size in finished[6:8]] == [30, 30]
    assert isinstance(window, SitesWindow)
    assert isinstance(site, Site)
    assert (window.task, site.task, site.path, site.blocks) == (
        "app.task",
        "app.task",
        __file__,
        1,
    )
    assert (round(site.size_bytes / 1_000_000), len(kept)) == (30, 30_000_000)


def test_a_process_that_runs_no_tasks_is_not_traced(task: Any) -> None:
    recording = Recording(tracing="always")
    recording.recorder.begin(-1, runs_tasks=False)
    assert not tracemalloc.is_tracing()
    recording.recorder.stop_tracing()
    recording.recorder.stop()


@pytest.mark.skipif(not hasattr(sys, "_clear_type_cache"), reason="no such cache")
def test_a_child_has_nothing_to_drop_from_the_interpreter_s_cache_of_attributes() -> None:
    name = "".join(("an_attribute_", "that_nobody_has"))
    getattr(Any, name, None)  # the cache keeps the name
    references = sys.getrefcount(name)

    def has_fewer() -> None:
        assert sys.getrefcount(name) < references

    in_a_fork(has_fewer)
