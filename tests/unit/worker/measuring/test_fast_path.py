"""A plain run takes the fast path: one frame, with the numbers that any run would have."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.codec import encode
from otel_celery_memory.ipc.records import TaskFinished, TaskStarted
from otel_celery_memory.probes.own_memory import PAGE_BYTES
from tests.unit.worker.bench import task_of
from tests.unit.worker.measuring.fast_path_bench import SLOT, FastPathBench


@pytest.fixture
def bench() -> Iterator[FastPathBench]:
    made = FastPathBench()
    yield made
    made.close()


def test_a_plain_run_has_the_numbers_that_any_run_has(bench: FastPathBench) -> None:
    runs = (("a", "app.first", 130), ("b", "app.second", 90), ("c", "app.second", 200))
    plain = [record for run in runs for record in bench.run(*run)]
    tracemalloc.start()  # nothing is plain under a user's tracing
    general = FastPathBench()
    for task_id, task, pages in runs:
        general.start(task_id, task_of(task))
        general.use(pages)
        general.end(task_id, task_of(task))
    tracemalloc.stop()
    sent = general.sent()
    assert plain == [
        finished._replace(
            retained_bytes=started.retained_bytes, previous_task=started.previous_task
        )
        for started, finished in zip(sent[::2], sent[1::2], strict=True)
        if isinstance(started, TaskStarted) and isinstance(finished, TaskFinished)
    ]
    assert len(plain) == 3
    general.close()


def test_frames_are_those_of_the_records(bench: FastPathBench) -> None:
    assert bench.start("a")
    start = TaskStarted(os.getpid(), 1, 100 * PAGE_BYTES, None, 0, "a", "app.task", "")
    frame = encode(start)
    assert bench.pipe.page.in_flight(SLOT)[: len(frame)] == frame
    bench.end("a")
    (record,) = bench.sent()
    assert isinstance(record, TaskFinished)
    assert record.task_id == "a"


def test_a_start_is_held_while_the_task_runs_and_not_sent(bench: FastPathBench) -> None:
    assert bench.held() == []
    assert bench.start("a")
    assert bench.held() == [
        TaskStarted(os.getpid(), 1, 100 * PAGE_BYTES, None, 0, "a", "app.task", "")
    ]
    assert bench.sent() == []
    bench.end("a")
    assert bench.held() == []


def test_what_a_task_retained_is_told_with_the_end_of_the_next(bench: FastPathBench) -> None:
    bench.run("a", "app.leak", 150)
    (finished,) = bench.run("b", "app.next", 150)
    assert isinstance(finished, TaskFinished)
    assert (finished.previous_task, finished.retained_bytes) == ("app.leak", 50 * PAGE_BYTES)
    # Not by the next start again.
    assert bench.measurement.retained_until_now()[:2] == ("app.next", 0)


def test_a_run_inside_a_run_hands_over_to_the_general_way_and_both_are_right(
    bench: FastPathBench,
) -> None:
    assert bench.start("outer", task_of("app.outer"))
    bench.use(110)
    assert not bench.start("inner", task_of("app.inner", eager=True))
    (start,) = bench.held()
    assert start == TaskStarted(os.getpid(), 1, 100 * PAGE_BYTES, None, 0, "outer", "app.outer", "")
    assert bench.sent()[0] == start
    bench.use(160)
    bench.use(120)
    assert bench.end("inner", task_of("app.inner"))
    assert bench.end("outer", task_of("app.outer"))
    ends = bench.sent()
    pages = [[int(size or 0) // PAGE_BYTES for size in end[3:6]] for end in ends]
    assert pages == [[110, 10, 50], [100, 20, 60]]
    assert [getattr(end, "nested", None) for end in ends] == [1, 0]


def test_a_start_whose_end_never_came_is_left_and_the_next_task_goes_the_general_way(
    bench: FastPathBench,
) -> None:
    assert bench.start("lost")
    assert not bench.start("a")
    assert bench.held() == bench.sent()
    bench.use(110)
    assert bench.end("a")
    (finished,) = bench.sent()
    assert isinstance(finished, TaskFinished)
    assert (finished.nested, finished.rss_delta_bytes) == (0, 10 * PAGE_BYTES)
    assert [type(record) for record in bench.run("b")] == [TaskFinished]


def test_an_end_that_did_not_begin_here_is_not_told(bench: FastPathBench) -> None:
    assert not bench.end("")
    assert not bench.end("a")
    assert bench.start("a")
    assert not bench.end("b")
    assert bench.sent() == []


def test_a_name_that_has_no_room_in_the_page_is_not_plain(bench: FastPathBench) -> None:
    name = "app." + "n" * 600
    assert not bench.start("a", task_of(name))
    (held,) = bench.held()
    assert isinstance(held, TaskStarted)
    assert name.startswith(held.task)
    assert bench.end("a", task_of(name))
    assert [getattr(record, "task", None) for record in bench.sent()] == [name[:512]] * 2
    # What is kept of the next run names this one, too.
    assert not bench.start("b")
    assert bench.end("b")
    bench.sent()
    assert [type(record) for record in bench.run("c")] == [TaskFinished]


def test_a_name_with_a_nul_is_sent_without_it(bench: FastPathBench) -> None:
    (finished,) = bench.run("a", "app.a\0b")
    assert isinstance(finished, TaskFinished)
    assert (finished.task, finished.state) == ("app.ab", "SUCCESS")


def test_an_id_that_is_no_string_is_not_plain(bench: FastPathBench) -> None:
    number: Any = 7
    assert not bench.start(number)
    assert bench.end(number)
    assert [getattr(record, "task_id", None) for record in bench.sent()] == ["7", "7"]


def test_a_state_too_long_for_the_frame_is_clipped_as_by_the_general_way(
    bench: FastPathBench,
) -> None:
    assert bench.start("a")
    assert bench.end("a", state="S" * 900)
    (finished,) = bench.sent()
    assert isinstance(finished, TaskFinished)
    assert (finished.task_id, finished.task, finished.state) == ("a", "app.task", "S" * 512)


def test_a_task_without_a_state_was_terminated(bench: FastPathBench) -> None:
    assert bench.start("a")
    assert bench.end("a", state=None)
    (finished,) = bench.sent()
    assert isinstance(finished, TaskFinished)
    assert finished.state == "TERMINATED"


def test_where_a_user_traces_runs_go_the_general_way(bench: FastPathBench) -> None:
    tracemalloc.start()
    assert not bench.start("a")
    tracemalloc.stop()
    assert bench.end("a")
    assert bench.start("b")


@pytest.mark.parametrize("step", ["rss", "time", "reset"])
def test_a_time_limit_that_strikes_at_a_start_leaves_the_next_task_right(
    bench: FastPathBench, step: str
) -> None:
    bench.failing[step] = SoftTimeLimitExceeded()
    with pytest.raises(SoftTimeLimitExceeded):
        bench.start("a")
    bench.next_is_right()


@pytest.mark.parametrize("step", ["rss", "peak", "time"])
def test_a_time_limit_that_strikes_at_an_end_leaves_the_next_task_right(
    bench: FastPathBench, step: str
) -> None:
    assert bench.start("a")
    bench.failing[step] = SoftTimeLimitExceeded()
    with pytest.raises(SoftTimeLimitExceeded):
        bench.end("a")
    assert bench.sent() == []
    bench.next_is_right()
