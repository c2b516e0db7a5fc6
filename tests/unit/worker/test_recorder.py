"""The recorder of one process: records in the right order, and failures that stay its own."""

from __future__ import annotations

import logging
import os
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from opentelemetry.trace import Span

from otel_celery_memory.probes.process import ProcessProbe
from otel_celery_memory.records import (
    HeapSampled,
    ProcessDown,
    ProcessUp,
    Site,
    SitesWindow,
    TaskFinished,
    TaskStarted,
)
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.recorder import Recorder
from otel_celery_memory.worker.spans import TaskSpans
from tests.unit.fakes import FakeMemory, ListSink

RECYCLE = 155


class Probes:
    """Opens memories of one process, and remembers them."""

    def __init__(self) -> None:
        self.opened: list[FakeMemory] = []

    def __call__(self) -> ProcessProbe:
        self.opened.append(FakeMemory())
        return self.opened[-1]


class FailingMemory(FakeMemory):
    """Fails, as a descriptor that a task has closed does."""

    error: BaseException = OSError(9, "Bad file descriptor")

    def rss_bytes(self) -> int:
        raise self.error


class FailingSpans(TaskSpans):
    """Fails at every task."""

    def of(self, task: Any, started_ns: int) -> tuple[Span | None, bool]:
        raise RuntimeError("no spans today")


class Bench:
    """A recorder of this process with what it wrote."""

    def __init__(self, spans: TaskSpans | None = None, **settings: Any) -> None:
        self.sink = ListSink()
        self.probes = Probes()
        self.recorder = Recorder(self.sink, Settings(**settings), spans or TaskSpans(), self.probes)

    def take(self) -> list[Any]:
        """The records since the last time, but those of the heap."""
        taken = [record for record in self.sink.records if not isinstance(record, HeapSampled)]
        self.sink.records.clear()
        return taken

    def run(self, task: Any, task_id: str = "a", state: str | None = "SUCCESS") -> list[Any]:
        """A task runs; what is told of it."""
        self.recorder.prerun(task_id, task)
        self.recorder.postrun(task_id, task, state)
        return self.take()


@pytest.fixture
def task() -> Iterator[Any]:
    app = Celery("recorder", broker="memory://", set_as_current=False)

    @app.task(name="app.task", shared=False)  # type: ignore[untyped-decorator]
    def run() -> None:
        """Never called."""

    yield run
    app.close()


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.recorder.begin(3)
    made.take()
    return made


def test_a_process_s_life_is_told_from_up_to_down(task: Any) -> None:
    bench = Bench()
    bench.recorder.begin(3)
    bench.recorder.prerun("a", task)
    bench.probes.opened[0].use(1_700)
    bench.recorder.postrun("a", task, "SUCCESS")
    bench.recorder.end(RECYCLE)
    up, started, finished, down = bench.take()
    assert up == ProcessUp(os.getpid(), up.time_ns, 3, 1_000)
    assert isinstance(started, TaskStarted)
    assert isinstance(finished, TaskFinished)
    assert (finished.task, finished.rss_delta_bytes, finished.state) == ("app.task", 700, "SUCCESS")
    assert down == ProcessDown(
        os.getpid(), down.time_ns, 3, RECYCLE, 1_700, 700, "max_tasks", "app.task"
    )


def test_a_task_that_ended_without_a_state_was_terminated(bench: Bench, task: Any) -> None:
    assert bench.run(task, state=None)[1].state == "TERMINATED"


def test_the_heap_is_sampled_behind_a_task_and_not_behind_every_one(task: Any) -> None:
    bench = Bench()
    bench.recorder.begin(0)
    for number in range(5):
        bench.recorder.prerun(str(number), task)
        bench.recorder.postrun(str(number), task, "SUCCESS")
    assert [type(record) for record in bench.sink.records[1:5]] == [
        TaskStarted,
        TaskFinished,
        HeapSampled,
        TaskStarted,
    ]
    assert sum(isinstance(record, HeapSampled) for record in bench.sink.records) == 1


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
    bench = Bench()
    bench.recorder.max_memory_kib = limit_kib
    bench.recorder.begin(0)
    bench.probes.opened[0].use(2_000)
    bench.take()
    bench.recorder.end(exit_code)
    assert [record.reason for record in bench.take()] == [reason]


def test_an_end_without_a_beginning_or_in_another_process_is_not_told(bench: Bench) -> None:
    Bench().recorder.end(0)
    pid = os.fork()
    if pid == 0:
        bench.recorder.end(0)
        os._exit(len(bench.take()))
    assert os.waitpid(pid, 0)[1] == 0


def test_in_a_forked_child_the_probes_are_opened_anew(bench: Bench, task: Any) -> None:
    bench.run(task)
    pid = os.fork()
    if pid == 0:
        started, _ = bench.run(task)
        os._exit(0 if started.pid == os.getpid() and started.retained_bytes is None else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_descriptors_that_a_task_closed_are_opened_again_and_the_next_task_is_measured(
    bench: Bench, task: Any
) -> None:
    bench.probes.opened[0].__class__ = FailingMemory
    assert bench.run(task) == []
    assert len(bench.probes.opened) == 2
    # The old one's numbers may be somebody else's by now.
    assert not bench.probes.opened[0].closed
    assert [type(record) for record in bench.run(task)] == [TaskStarted, TaskFinished]


def test_a_probe_that_fails_again_and_again_is_switched_off_with_one_line(
    bench: Bench, task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        bench.probes.opened[-1].__class__ = FailingMemory
        bench.run(task)
    assert len(bench.probes.opened) == 4
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.ERROR, "otel_celery_memory: meter failed and is switched off")
    ]


def test_spans_that_fail_are_switched_off_with_one_line_and_the_records_go_on(
    task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(FailingSpans())
    bench.recorder.begin(0)
    bench.take()
    for _ in range(3):
        assert [type(record) for record in bench.run(task)] == [TaskStarted, TaskFinished]
    assert [r.getMessage() for r in caplog.records] == [
        "otel_celery_memory: spans failed and is switched off"
    ]


def test_a_soft_time_limit_that_strikes_in_our_code_is_the_task_s(bench: Bench, task: Any) -> None:
    failing = FailingMemory()
    failing.error = SoftTimeLimitExceeded()
    bench.recorder._meter._probe = failing  # type: ignore[union-attr]
    with pytest.raises(SoftTimeLimitExceeded):
        bench.recorder.prerun("a", task)


def test_after_a_stop_nothing_is_measured_and_nothing_is_open(bench: Bench, task: Any) -> None:
    bench.recorder.stop()
    bench.recorder.stop()
    assert (bench.run(task), bench.probes.opened[0].closed) == ([], True)


def test_with_tracing_off_nothing_is_traced(bench: Bench, task: Any) -> None:
    assert not tracemalloc.is_tracing()
    assert bench.run(task)[1][5:7] == (None, None)


def test_with_tracing_always_every_task_has_traced_numbers_and_its_sites_are_told(
    task: Any,
) -> None:
    bench = Bench(tracing="always", sites_include=(__file__,))
    bench.recorder.begin(0)
    kept = []
    bench.recorder.prerun("a", task)
    kept.append(bytes(300_000))
    bench.recorder.postrun("a", task, "SUCCESS")
    bench.recorder.end(0)
    bench.recorder.stop()
    _, _, finished, window, site, *_ = bench.take()
    assert [round(size / 1_000) for size in finished[5:7]] == [300, 300]
    assert isinstance(window, SitesWindow)
    assert isinstance(site, Site)
    assert (window.task, site.task, site.path, site.blocks) == (
        "app.task",
        "app.task",
        __file__,
        1,
    )
    assert (site.size_bytes // 1_000, len(kept)) == (300, 1)


def test_a_process_that_runs_no_tasks_is_not_traced(task: Any) -> None:
    bench = Bench(tracing="always")
    bench.recorder.begin(-1, runs_tasks=False)
    assert not tracemalloc.is_tracing()
    bench.recorder.stop()
