"""The guard of a traced run: slices, aborts, and what tasks do to tracing meanwhile."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from otel_celery_memory.worker.tracing import traced_run
from otel_celery_memory.worker.tracing.sampler import Plan
from tests.unit.forks import in_a_fork
from tests.unit.worker.tracing.tracing_bench import RunBench, flags, here, plan, wait_for_tracing

SLICE = Plan(allowance_s=0.5, begin_after_s=0.0)
BLOCK_BYTES = sys.getsizeof(bytes(1_000))


def block() -> bytes:
    return bytes(1_000)


BLOCK_LINE = block.__code__.co_firstlineno + 1


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced_run, "_NEXT_SLICE_POLL_S", 0.005)


def test_a_run_that_costs_more_than_its_allowance_is_traced_no_longer() -> None:
    bench = RunBench(plan(allowance_s=0.5))
    assert bench.run.begin()
    kept = block()
    bench.cpu.move(0.6)
    bench.wait_for(1)
    assert not tracemalloc.is_tracing()
    after = block()
    bench.run.task_ended()
    traced = bench.only()
    assert flags(traced) == {"whole": True, "aborted": True}
    assert here(__file__, traced.sites)[BLOCK_LINE] == (BLOCK_BYTES, 1)
    assert len(kept) == len(after)


def test_what_looking_will_cost_counts_in_the_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced_run, "_TRACE_COST_S", 0.01)
    bench = RunBench(plan(allowance_s=5.0))
    assert bench.run.begin()
    kept = [bytes(100) for _ in range(1_000)]
    bench.wait_for(1)
    bench.run.task_ended()
    assert bench.only().aborted
    assert len(kept) == 1_000


def test_a_slice_begins_behind_the_start_and_ends_with_the_task() -> None:
    bench = RunBench(SLICE)
    assert bench.run.begin()
    wait_for_tracing()
    kept = block()
    bench.run.task_ended()
    assert not tracemalloc.is_tracing()
    traced = bench.only()
    assert flags(traced) == {"whole": False, "aborted": False}
    assert here(__file__, traced.sites)[BLOCK_LINE] == (BLOCK_BYTES, 1)
    assert bench.run.was_traced
    assert len(kept) == 1_000


def test_a_slice_ends_when_its_allowance_is_spent_and_the_task_goes_on() -> None:
    bench = RunBench(SLICE)
    assert bench.run.begin()
    wait_for_tracing()
    bench.cpu.move(0.6)
    bench.wait_for(1)
    assert not tracemalloc.is_tracing()
    bench.run.task_ended()
    assert flags(bench.only()) == {"whole": False, "aborted": True}


def test_a_task_that_ended_before_its_slice_began_was_not_seen() -> None:
    bench = RunBench(plan(begin_after_s=3_600.0))
    bench.task(lambda: None)
    assert (bench.over(), bench.run.was_traced) == ([], False)


def test_a_long_run_is_sliced_again_when_there_is_a_plan_for_it() -> None:
    bench = RunBench(SLICE)
    assert bench.run.begin()
    for windows in (1, 2, 3):
        wait_for_tracing()
        bench.cpu.move(0.6)
        bench.wait_for(windows)
        assert not tracemalloc.is_tracing()
        bench.next_plans.append(SLICE)
    wait_for_tracing()
    bench.run.task_ended()
    assert [flags(traced) for traced in bench.over()] == [
        {"whole": False, "aborted": aborted} for aborted in (True, True, True, False)
    ]


def test_a_whole_run_that_was_stopped_goes_on_in_slices() -> None:
    bench = RunBench(plan(allowance_s=0.5))
    assert bench.run.begin()
    bench.cpu.move(0.6)
    bench.wait_for(1)
    bench.next_plans.append(SLICE)
    wait_for_tracing()
    bench.run.task_ended()
    assert [flags(traced) for traced in bench.over()] == [
        {"whole": True, "aborted": True},
        {"whole": False, "aborted": False},
    ]


def test_a_user_who_starts_tracing_in_the_task_has_his_own_with_his_frames() -> None:
    bench = RunBench()
    assert bench.run.begin()
    tracemalloc.start(7)
    kept = bytes(1_000)
    bench.run.task_ended()
    traced = bench.only()
    assert (tracemalloc.is_tracing(), tracemalloc.get_traceback_limit()) == (True, 7)
    assert (traced.sites, traced.aborted) == ({}, True)
    assert tracemalloc.get_object_traceback(kept) is not None
    tracemalloc.stop()


def test_a_user_who_traces_in_the_task_and_stops_again_leaves_nothing_on() -> None:
    bench = RunBench()
    assert bench.run.begin()
    tracemalloc.start(7)
    tracemalloc.stop()
    bench.run.task_ended()
    assert bench.only().aborted
    assert not tracemalloc.is_tracing()


def test_a_user_who_stops_our_tracing_in_the_task_ends_the_window() -> None:
    bench = RunBench()
    assert bench.run.begin()
    tracemalloc.stop()
    bench.run.task_ended()
    traced = bench.only()
    assert (traced.sites, traced.whole, traced.aborted) == ({}, True, True)


def test_what_a_user_finds_as_tracemalloc_start_is_python_s_again_after_the_run() -> None:
    before: Any = tracemalloc.start
    bench = RunBench()
    assert bench.run.begin()
    assert tracemalloc.start != before
    bench.run.task_ended()
    bench.over()
    assert tracemalloc.start is before


def test_what_a_traced_task_forks_is_not_traced() -> None:
    def look() -> None:
        assert not tracemalloc.is_tracing()

    bench = RunBench()
    assert bench.run.begin()
    in_a_fork(look)
    assert tracemalloc.is_tracing()
    bench.run.task_ended()
    bench.over()


@pytest.mark.parametrize("whole", [True, False])
def test_a_time_limit_that_strikes_while_we_look_leaves_nothing_traced(
    whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def struck() -> None:
        raise SoftTimeLimitExceeded

    bench = RunBench(plan() if whole else SLICE)
    assert bench.run.begin()
    wait_for_tracing()
    monkeypatch.setattr(traced_run, "take_traces", struck)
    with pytest.raises(SoftTimeLimitExceeded):
        bench.run.task_ended()
    monkeypatch.undo()
    bench.over()
    assert not tracemalloc.is_tracing()


def test_whoever_cannot_be_told_what_was_found_is_logged_and_nothing_is_left_traced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = RunBench(plan(allowance_s=0.5))
    bench.run._window._found = lambda _: 1 / 0  # type: ignore[assignment]
    assert bench.run.begin()
    bench.cpu.move(0.6)
    wait_for_tracing(on=False)
    bench.over()
    assert [r.getMessage() for r in caplog.records] == [
        "otel_celery_memory: tracing of a task failed"
    ]
