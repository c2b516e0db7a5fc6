"""One run under real tracing: what it left behind is found, exactly, and nothing else."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import pytest

from otel_celery_memory.worker.tracing import traced_run
from tests.unit.worker.tracing.tracing_bench import RunBench, flags, here

BLOCK_BYTES = sys.getsizeof(bytes(1_000))


@pytest.fixture
def kept() -> list[Any]:
    """Room for what a task leaves behind, there before it."""
    return [None] * 500


def leak(kept: list[Any], count: int) -> None:
    for number in range(count):
        kept[number] = bytes(1_000)


LEAK_LINE = leak.__code__.co_firstlineno + 2


def test_what_a_run_left_alive_is_found_to_the_byte(kept: list[Any]) -> None:
    bench = RunBench()
    # CPython 3.10 keeps the frame of each function's first call for the next one.
    leak(kept, 1)
    bench.task(lambda: leak(kept, 500))
    traced = bench.only()
    assert here(__file__, traced.sites) == {LEAK_LINE: (500 * BLOCK_BYTES, 500)}
    assert flags(traced) == {"whole": True, "aborted": False}
    assert not tracemalloc.is_tracing()


def test_with_more_frames_a_site_has_those_that_led_to_it(kept: list[Any]) -> None:
    bench = RunBench(frames=3)
    bench.task(lambda: leak(kept, 5))
    (frames,) = [f for f in bench.only().sites if f[0] == (__file__, LEAK_LINE)]
    assert len(frames) == 3
    assert frames[1][0] == __file__


def test_what_the_run_freed_again_is_not_found(kept: list[Any]) -> None:
    def body() -> None:
        leak(kept, 100)
        kept[:100] = [None] * 100

    bench = RunBench()
    bench.task(body)
    assert here(__file__, bench.only().sites) == {}


def test_small_objects_that_the_interpreter_keeps_for_its_next_ones_are_not_left_behind() -> None:
    def body() -> int:
        rows = [{"id": number, "tags": (number, [number], float(number))} for number in range(300)]
        return len(rows)

    bench = RunBench()
    bench.task(body)
    assert here(__file__, bench.only().sites) == {}


def test_a_return_value_is_alive_at_the_end_and_is_not_left_behind() -> None:
    bench = RunBench()
    bench.task(lambda: [bytes(1_000) for _ in range(100)])
    assert here(__file__, bench.only().sites) == {}


def test_what_comes_between_the_end_and_the_next_task_is_not_the_run_s(kept: list[Any]) -> None:
    bench = RunBench()
    bench.task(lambda: leak(kept, 3))
    arguments = [bytes(2_000) for _ in range(100)]
    assert here(__file__, bench.only().sites) == {LEAK_LINE: (3 * BLOCK_BYTES, 3)}
    assert len(arguments) == 100


def test_without_a_next_task_the_run_is_over_a_moment_after_its_end(kept: list[Any]) -> None:
    bench = RunBench()
    bench.task(lambda: leak(kept, 3))
    bench.wait_for(1)
    assert not tracemalloc.is_tracing()
    assert here(__file__, bench.only().sites) == {LEAK_LINE: (3 * BLOCK_BYTES, 3)}


def test_the_next_task_does_not_wait_for_that_moment(
    kept: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traced_run, "LINGER_S", 3_600.0)
    bench = RunBench()
    bench.task(lambda: leak(kept, 3))
    assert tracemalloc.is_tracing()
    assert here(__file__, bench.only().sites) == {LEAK_LINE: (3 * BLOCK_BYTES, 3)}


def test_of_very_much_that_is_alive_one_look_is_enough(
    kept: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traced_run, "_SECOND_READ_MAX_TRACES", 100)
    bench = RunBench()
    bench.task(lambda: leak(kept, 500))
    assert not tracemalloc.is_tracing()
    assert here(__file__, bench.only().sites) == {LEAK_LINE: (500 * BLOCK_BYTES, 500)}


def test_a_run_whose_end_was_never_told_is_told_at_the_next_start(kept: list[Any]) -> None:
    bench = RunBench()
    assert bench.run.begin()
    leak(kept, 3)
    assert here(__file__, bench.only().sites)[LEAK_LINE] == (3 * BLOCK_BYTES, 3)


def test_an_end_that_is_told_again_and_again_is_one(kept: list[Any]) -> None:
    bench = RunBench()
    bench.task(lambda: leak(kept, 3))
    for _ in range(3):
        bench.run.task_ended()
        bench.run.end()
    assert len(bench.over()) == 1


def test_the_cost_is_told_in_cpu_time_under_tracing(kept: list[Any]) -> None:
    bench = RunBench()
    bench.cpu.move(5.0)
    assert bench.run.begin()
    bench.cpu.move(0.75)
    bench.run.task_ended()
    traced = bench.only()
    assert (traced.cpu_s, traced.extra_s) == (0.75, 0.0)


def test_where_there_are_no_threads_left_a_run_is_not_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(traced_run, "start_native_thread", none_left)
    bench = RunBench()
    assert not bench.run.begin()
    assert bench.over() == []
    assert not tracemalloc.is_tracing()


def test_where_somebody_traces_already_a_run_is_not_traced_and_his_tracing_left_on() -> None:
    tracemalloc.start(4)
    bench = RunBench()
    assert not bench.run.begin()
    assert (bench.over(), bench.run.was_traced) == ([], False)
    assert tracemalloc.get_traceback_limit() == 4
    tracemalloc.stop()
