"""Runs inside one another, which are exact, and runs beside one another, which are not."""

from __future__ import annotations

import pytest

from otel_celery_memory.ipc.records import TaskFinished
from tests.unit.fakes import FakeTracer
from tests.unit.worker.bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench(tracer=FakeTracer(tracing=True))


def use(bench: Bench, size: int) -> None:
    """RSS and traced memory become this much more than they were at the very start."""
    bench.memory.use(1_000 + size)
    bench.tracer.use(size)


def numbers(finished: TaskFinished) -> tuple[int | None, ...]:
    """RSS delta and peak, traced delta and peak."""
    return finished[4:8]


def test_an_eager_call_is_nested_and_both_have_exact_numbers(bench: Bench) -> None:
    bench.start("outer")
    use(bench, 100)
    inner = bench.start("inner", nested=True)
    use(bench, 700)
    use(bench, 400)
    nested = bench.finish("inner")
    use(bench, 150)
    outer = bench.finish("outer")

    assert (inner.nested, inner.retained_bytes, inner.rss_bytes) == (1, None, 1_100)
    assert (nested.nested, nested.exclusive, numbers(nested)) == (1, 1, (300, 600, 300, 600))
    assert (outer.nested, outer.exclusive, numbers(outer)) == (0, 1, (150, 700, 150, 700))


def test_a_peak_before_the_eager_call_stays_the_outer_run_s(bench: Bench) -> None:
    bench.start("outer")
    use(bench, 900)
    use(bench, 0)
    bench.start("inner", nested=True)
    use(bench, 50)
    assert numbers(bench.finish("inner")) == (50, 50, 50, 50)
    assert numbers(bench.finish("outer")) == (50, 900, 50, 900)


def test_a_peak_after_the_eager_call_is_the_outer_run_s_alone(bench: Bench) -> None:
    bench.start("outer")
    bench.start("inner", nested=True)
    use(bench, 50)
    assert numbers(bench.finish("inner")) == (50, 50, 50, 50)
    use(bench, 800)
    use(bench, 10)
    assert numbers(bench.finish("outer")) == (10, 800, 10, 800)


def test_peaks_go_up_through_every_depth(bench: Bench) -> None:
    bench.start("a")
    bench.start("b", nested=True)
    bench.start("c", nested=True)
    use(bench, 600)
    use(bench, 0)
    assert numbers(bench.finish("c")) == (0, 600, 0, 600)
    bench.start("d", nested=True)
    assert numbers(bench.finish("d")) == (0, 0, 0, 0)
    assert numbers(bench.finish("b")) == (0, 600, 0, 600)
    assert numbers(bench.finish("a")) == (0, 600, 0, 600)


def test_a_task_that_is_called_again_with_its_own_id_ends_inside_first(bench: Bench) -> None:
    # An eager retry has the id of the run that retries.
    bench.start("a")
    use(bench, 10)
    bench.start("a", nested=True)
    use(bench, 30)
    assert (inner := bench.finish("a")).nested == 1
    assert (outer := bench.finish("a")).nested == 0
    assert (numbers(inner), numbers(outer)) == ((20, 20, 20, 20), (30, 30, 30, 30))


def test_an_eager_call_does_not_come_between_two_starts(bench: Bench) -> None:
    bench.start("a")
    bench.start("inner", nested=True)
    bench.finish("inner")
    bench.finish("a")
    use(bench, 70)
    following = bench.start("b")
    assert (following.retained_bytes, following.previous_task) == (70, "app.a")


def test_runs_that_overlap_are_shared_on_both_sides_whoever_ends_first(bench: Bench) -> None:
    for first_to_end in (1, 2):
        bench.thread = 1
        bench.start("a")
        bench.thread = 2
        bench.start("b")
        use(bench, 500)
        ends = {}
        for thread in (first_to_end, 3 - first_to_end):
            bench.thread = thread
            ends[thread] = bench.finish("a" if thread == 1 else "b")
        assert [ends[thread].exclusive for thread in (1, 2)] == [0, 0]
        assert [numbers(ends[thread])[1:] for thread in (1, 2)] == [(None, None, None)] * 2
        use(bench, 0)


def test_a_shared_run_s_growth_is_told_and_marked(bench: Bench) -> None:
    bench.start("a")
    bench.thread = 2
    bench.start("b")
    use(bench, 500)
    finished = bench.finish("b")
    assert (finished.exclusive, finished.rss_delta_bytes, finished.nested) == (0, 500, 0)


def test_a_run_that_starts_after_the_other_s_end_has_the_process_to_itself(bench: Bench) -> None:
    bench.start("a")
    bench.finish("a")
    bench.thread = 2
    bench.start("b")
    assert bench.finish("b").exclusive == 1


def test_three_in_a_chain_are_all_shared_and_the_one_after_them_is_not(bench: Bench) -> None:
    bench.start("a")
    bench.thread = 2
    bench.start("b")
    bench.thread = 1
    a = bench.finish("a")
    bench.start("c")
    bench.thread = 2
    b = bench.finish("b")
    bench.thread = 1
    c = bench.finish("c")
    bench.start("d")
    d = bench.finish("d")
    assert [run.exclusive for run in (a, b, c, d)] == [0, 0, 0, 1]


def test_growth_that_belongs_to_nobody_is_nobody_s_retained(bench: Bench) -> None:
    bench.start("a")
    bench.finish("a")
    bench.start("b")
    bench.thread = 2
    beside = bench.start("c")
    assert (beside.retained_bytes, beside.previous_task) == (None, "")
    bench.finish("c")
    bench.thread = 1
    bench.finish("b")
    use(bench, 500)
    assert bench.start("d").retained_bytes is None
    bench.finish("d")
    use(bench, 600)
    assert bench.start("e").retained_bytes == 100


def test_an_eager_call_beside_another_thread_s_task_is_shared_like_its_caller(bench: Bench) -> None:
    bench.start("outer")
    bench.thread = 2
    bench.start("other")
    bench.thread = 1
    bench.start("inner", nested=True)
    inner = bench.finish("inner")
    outer = bench.finish("outer")
    bench.thread = 2
    other = bench.finish("other")
    assert [run.exclusive for run in (inner, outer, other)] == [0, 0, 0]
    assert [run.nested for run in (inner, outer, other)] == [1, 0, 0]


def test_a_rebase_leaves_a_shared_run_and_the_other_thread_s_mark_alone(bench: Bench) -> None:
    bench.start("a")
    bench.thread = 2
    bench.start("b")
    use(bench, 500)
    bench.rebase()
    assert bench.memory.mark_bytes == 1_500
    assert bench.finish("b").rss_start_bytes == 1_000
