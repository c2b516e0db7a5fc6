"""What one task did to memory, on a memory, a tracer, a clock and threads that the test moves."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags

from otel_celery_memory.ipc.records import NO_SPAN, TaskFinished, TaskStarted
from otel_celery_memory.worker.measuring.concurrent_runs import Run
from otel_celery_memory.worker.measuring.spans import TaskSpans
from tests.unit.examples import SPAN
from tests.unit.fakes import FakeMemory, FakeTracer
from tests.unit.worker.bench import Bench

PID = os.getpid()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def traced() -> Bench:
    return Bench(tracer=FakeTracer(tracing=True))


class FoundSpan(TaskSpans):
    """Finds the span of the examples."""

    def of(self, task: Any, started_ns: int) -> tuple[Span | None, bool]:
        trace_id, span_id = (int.from_bytes(part, "big") for part in (SPAN[:16], SPAN[16:24]))
        context = SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(SPAN[24]))
        return NonRecordingSpan(context), False


def test_a_task_s_start_and_end_are_sent_whole() -> None:
    traced = Bench(tracer=FakeTracer(tracing=True), spans=FoundSpan())
    started = traced.start("a")
    traced.memory.use(5_000)
    traced.tracer.use(700)
    traced.memory.use(1_200)
    traced.tracer.use(50)
    finished = traced.finish("a", "FAILURE")

    assert started == TaskStarted(
        pid=PID,
        time_ns=1,
        rss_bytes=1_000,
        retained_bytes=None,
        nested=0,
        task_id="a",
        task="app.a",
        previous_task="",
    )
    assert finished == TaskFinished(
        pid=PID,
        time_ns=2,
        started_ns=1,
        rss_start_bytes=1_000,
        rss_delta_bytes=200,
        rss_peak_bytes=4_000,
        traced_delta_bytes=50,
        traced_peak_bytes=700,
        retained_bytes=None,
        exclusive=1,
        nested=0,
        span=SPAN,
        task_id="a",
        task="app.a",
        state="FAILURE",
        previous_task="",
    )


def test_memory_given_back_is_negative_and_the_peak_never_is(bench: Bench) -> None:
    bench.start("a")
    bench.memory.use(400)
    finished = bench.finish("a")
    assert (finished.rss_delta_bytes, finished.rss_peak_bytes) == (-600, 0)


def test_without_tracing_there_are_no_traced_numbers_and_no_span_is_all_zero(bench: Bench) -> None:
    bench.start("a")
    finished = bench.finish("a")
    assert finished[6:8] == (None, None)
    assert finished.span == NO_SPAN


def test_a_peak_of_before_the_task_is_not_the_task_s() -> None:
    bench = Bench()
    bench.memory.use(9_000)
    bench.memory.use(1_000)
    bench.start("a")
    assert bench.finish("a").rss_peak_bytes == 0


def test_where_no_peak_can_be_started_there_is_none() -> None:
    bench = Bench(memory=FakeMemory(has_peak=False))
    bench.start("a")
    bench.memory.use(3_000)
    finished = bench.finish("a")
    assert (finished.rss_delta_bytes, finished.rss_peak_bytes) == (2_000, None)


def test_a_mark_that_lags_behind_rss_is_not_below_it(bench: Bench) -> None:
    bench.start("a")
    bench.memory.now_bytes = 1_800
    assert bench.finish("a").rss_peak_bytes == 800


def test_tracing_that_began_or_ended_inside_a_task_gives_it_no_traced_numbers(bench: Bench) -> None:
    bench.start("a")
    bench.tracer.session = 1
    assert bench.finish("a")[6:8] == (None, None)
    bench.start("b")
    bench.tracer.session = 0
    assert bench.finish("b")[6:8] == (None, None)
    bench.tracer.session = 1
    bench.start("c")
    bench.tracer.session = 2  # stopped, and begun again by somebody else
    assert bench.finish("c")[6:8] == (None, None)


def test_tracing_that_another_thread_stops_while_it_is_read_gives_no_traced_numbers(
    bench: Bench,
) -> None:
    class StoppedMeanwhile(FakeTracer):
        def read(self) -> tuple[int, int]:
            self.session = 0
            return 0, 0

    bench = Bench(tracer=StoppedMeanwhile(tracing=True))
    bench.start("a")
    bench.tracer.use(500)
    assert bench.finish("a")[6:8] == (None, None)


def test_retained_is_from_one_start_to_the_next_whatever_was_alive_between(bench: Bench) -> None:
    bench.start("a")
    bench.memory.use(5_000)
    bench.finish("a")
    bench.memory.use(1_300)
    started = bench.start("b")
    assert (started.retained_bytes, started.previous_task) == (300, "app.a")


def test_the_last_task_s_retained_is_told_at_the_process_s_end(bench: Bench) -> None:
    assert bench.measurement.retained_until_now() == ("", None, 1_000)
    bench.start("a")
    assert bench.measurement.retained_until_now() == ("", None, 1_000)
    bench.finish("a")
    bench.memory.use(1_700)
    assert bench.measurement.retained_until_now() == ("app.a", 700, 1_700)


def test_a_rebase_begins_the_run_s_numbers_from_there(traced: Bench) -> None:
    traced.start("a")
    traced.memory.use(2_000)
    traced.tracer.use(100)
    traced.rebase()
    traced.memory.use(2_500)
    traced.tracer.use(130)
    finished = traced.finish("a")
    assert finished[3:8] == (2_000, 500, 500, 30, 30)
    traced.memory.use(2_100)
    assert traced.start("b").retained_bytes == 100


def test_an_end_whose_start_was_not_seen_is_nobody_s(bench: Bench) -> None:
    assert not bench.is_known("a")
    bench.start("a")
    assert not bench.is_known("other")
    assert bench.finish("a").exclusive == 1


def test_a_run_whose_end_was_never_told_is_forgotten_at_the_next_start(bench: Bench) -> None:
    bench.start("lost")
    bench.memory.use(3_000)
    started = bench.start("b")
    assert (started.nested, started.retained_bytes, started.previous_task) == (0, None, "")
    bench.memory.use(3_500)
    finished = bench.finish("b")
    assert (finished.exclusive, finished.nested, finished.rss_delta_bytes) == (1, 0, 500)
    assert not bench.is_known("lost")


def test_whether_a_run_is_nested_is_asked_only_where_one_runs(bench: Bench) -> None:
    task: Any = SimpleNamespace(name="app.a")  # without a request to ask
    for task_id in ("a", "b"):
        bench.measurement.start(task_id, task)
        bench.finish(task_id)


def test_a_run_that_reads_its_memory_is_a_plain_object_without_a_dictionary() -> None:
    assert not hasattr(Run(1, 0, nested=False, alone=True), "__dict__")


def test_the_clock_is_not_read_more_than_once_a_record() -> None:
    bench = Bench()
    bench.start("a")
    bench.finish("a")
    assert bench.reads == 2
