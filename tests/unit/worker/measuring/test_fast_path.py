"""The short way through plain runs tells what the general way would, in one frame a task."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.ipc.codec import FrameDecoder, encode
from otel_celery_memory.ipc.records import TaskFinished, TaskStarted
from otel_celery_memory.probes.own_memory import PAGE_BYTES
from tests.unit.worker.measuring.fast_path_bench import SLOT, FastPathBench, task_of


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[FastPathBench]:
    made = FastPathBench(monkeypatch)
    yield made
    made.close()


RUNS = (("a", "app.first", 130), ("b", "app.second", 90), ("c", "app.second", 200))


def merged(started: TaskStarted, finished: TaskFinished) -> TaskFinished:
    """The end as it is told where the start was not sent."""
    return finished._replace(
        retained_bytes=started.retained_bytes, previous_task=started.previous_task
    )


def test_what_is_told_of_runs_is_what_the_general_way_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = FastPathBench(monkeypatch)
    told = [record for run in RUNS for record in short.run(*run)]
    general = FastPathBench(monkeypatch)
    assert told == [merged(*general.general(*run)) for run in RUNS]
    short.close()
    general.close()


def test_frames_are_those_of_the_records(bench: FastPathBench) -> None:
    assert bench.fast_path.starts("a", task_of())
    start = TaskStarted(os.getpid(), 1, 100 * PAGE_BYTES, None, 0, "a", "app.task", "")
    frame = encode(start)
    assert bench.pipe.page.in_flight(SLOT)[: len(frame)] == frame
    bench.fast_path.ends("a", task_of(), "SUCCESS")
    sent = os.read(bench.pipe.read_fd, 4_096)
    (record,) = FrameDecoder().feed(sent)
    assert sent == encode(record)


def test_a_start_is_held_while_the_task_runs_and_not_sent(bench: FastPathBench) -> None:
    assert bench.held() == []
    assert bench.fast_path.starts("a", task_of())
    assert bench.held() == [
        TaskStarted(os.getpid(), 1, 100 * PAGE_BYTES, None, 0, "a", "app.task", "")
    ]
    assert bench.told() == []
    bench.fast_path.ends("a", task_of(), "SUCCESS")
    assert bench.held() == []


def test_what_a_task_retained_is_told_with_the_end_of_the_next(bench: FastPathBench) -> None:
    bench.run("a", "app.leak", 150)
    (finished,) = bench.run("b", "app.next", 150)
    assert isinstance(finished, TaskFinished)
    assert (finished.previous_task, finished.retained_bytes) == ("app.leak", 50 * PAGE_BYTES)
    # Not by the next start again.
    assert bench.measurement.previous == ("app.next", 150 * PAGE_BYTES)


def test_a_run_inside_a_run_hands_over_to_the_general_way_and_both_are_right(
    bench: FastPathBench,
) -> None:
    assert bench.fast_path.starts("outer", task_of("app.outer"))
    bench.use(110)
    assert not bench.fast_path.starts("inner", task_of("app.inner", eager=True))
    (start,) = bench.told()
    assert start == TaskStarted(os.getpid(), 1, 100 * PAGE_BYTES, None, 0, "outer", "app.outer", "")
    assert bench.held() == [start]
    inner = bench.measurement.start("inner", "app.inner", lambda: True)
    bench.use(160)
    bench.use(120)
    run = bench.measurement.finish("inner")
    assert run is not None
    inner_end = bench.measurement.result(run, "SUCCESS")
    assert not bench.fast_path.ends("outer", task_of("app.outer"), "SUCCESS")
    run = bench.measurement.finish("outer")
    assert run is not None
    outer_end = bench.measurement.result(run, "SUCCESS")
    pages = [[int(size or 0) // PAGE_BYTES for size in end[3:6]] for end in (inner_end, outer_end)]
    assert pages == [[110, 10, 50], [100, 20, 60]]
    assert (inner.nested, inner_end.nested, outer_end.nested) == (1, 1, 0)


def test_a_start_whose_end_never_came_is_left_and_the_next_task_goes_the_general_way(
    bench: FastPathBench,
) -> None:
    assert bench.fast_path.starts("lost", task_of())
    assert not bench.fast_path.starts("a", task_of())
    assert (bench.held(), bench.told(), bench.measurement.threads) == ([], [], 0)
    started, finished = bench.general()
    assert (started.nested, finished.rss_delta_bytes) == (0, 10 * PAGE_BYTES)
    assert [type(record) for record in bench.run("b")] == [TaskFinished]


def test_an_end_that_did_not_begin_here_is_not_told(bench: FastPathBench) -> None:
    assert not bench.fast_path.ends("", task_of(), "SUCCESS")
    assert not bench.fast_path.ends("a", task_of(), "SUCCESS")
    assert bench.fast_path.starts("a", task_of())
    assert not bench.fast_path.ends("b", task_of(), "SUCCESS")
    assert bench.told() == []


@pytest.mark.parametrize("name", ["app." + "n" * 600, "app.a\0b"])
def test_a_name_that_must_be_clipped_goes_the_general_way(bench: FastPathBench, name: str) -> None:
    assert not bench.fast_path.starts("a", task_of(name))
    assert (bench.held(), bench.told()) == ([], [])
    assert [type(record) for record in bench.run("b")] == [TaskFinished]


def test_an_id_that_is_no_string_goes_the_general_way(bench: FastPathBench) -> None:
    number: Any = 7
    assert not bench.fast_path.starts(number, task_of())
    assert bench.held() == []


def test_a_state_too_long_for_the_frame_is_clipped_as_by_the_general_way(
    bench: FastPathBench,
) -> None:
    assert bench.fast_path.starts("a", task_of())
    assert bench.fast_path.ends("a", task_of(), "S" * 900)
    (finished,) = bench.told()
    assert isinstance(finished, TaskFinished)
    assert (finished.task_id, finished.task, finished.state) == ("a", "app.task", "S" * 512)


def test_a_task_without_a_state_was_terminated(bench: FastPathBench) -> None:
    assert bench.fast_path.starts("a", task_of())
    assert bench.fast_path.ends("a", task_of(), None)
    (finished,) = bench.told()
    assert isinstance(finished, TaskFinished)
    assert finished.state == "TERMINATED"


def test_where_a_user_traces_runs_go_the_general_way(bench: FastPathBench) -> None:
    tracemalloc.start()
    assert not bench.fast_path.starts("a", task_of())
    tracemalloc.stop()
    assert bench.fast_path.starts("a", task_of())


@pytest.mark.parametrize("step", ["pread", "time_ns", "write"])
def test_a_time_limit_that_strikes_at_a_start_leaves_the_next_task_right(
    bench: FastPathBench, step: str
) -> None:
    bench.failing[step] = SoftTimeLimitExceeded()
    with pytest.raises(SoftTimeLimitExceeded):
        bench.fast_path.starts("a", task_of())
    next_is_right(bench)


@pytest.mark.parametrize("step", ["pread", "getrusage", "time_ns"])
def test_a_time_limit_that_strikes_at_an_end_leaves_the_next_task_right(
    bench: FastPathBench, step: str
) -> None:
    assert bench.fast_path.starts("a", task_of())
    bench.failing[step] = SoftTimeLimitExceeded()
    with pytest.raises(SoftTimeLimitExceeded):
        bench.fast_path.ends("a", task_of(), "SUCCESS")
    assert bench.told() == []
    next_is_right(bench)


def next_is_right(bench: FastPathBench) -> None:
    """The next task is measured, here or in the general way, and the one behind it here."""
    bench.use(100)
    if bench.fast_path.starts("b", task_of()):
        bench.use(140)
        assert bench.fast_path.ends("b", task_of(), "SUCCESS")
        (finished,) = bench.told()
    else:
        _, finished = bench.general("b", pages=140)
    assert isinstance(finished, TaskFinished)
    assert (finished.task_id, finished.rss_start_bytes, finished.rss_delta_bytes) == (
        "b",
        100 * PAGE_BYTES,
        40 * PAGE_BYTES,
    )
    assert bench.held() == []
    assert [type(record) for record in bench.run("c")] == [TaskFinished]
