"""Tracing where threads of one process come between each other's lines, and limits between ours."""

from __future__ import annotations

import tracemalloc

import pytest

from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.worker.tracing import traced_run
from otel_celery_memory.worker.tracing.traced_run import TracedRun
from tests.unit.worker.tracing.process_tracing import Tracing
from tests.unit.worker.tracing.tracing_bench import RunBench


class Struck(BaseException):
    """A time limit."""


def test_another_thread_s_task_may_start_while_the_traced_one_s_end_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traced_run, "LINGER_S", 3_600.0)
    tracing = Tracing()
    tracing.run()
    assert tracing.start()
    task_ended = TracedRun.task_ended

    def meanwhile(run: TracedRun) -> None:
        task_ended(run)
        tracing.tracing.starting()

    monkeypatch.setattr(TracedRun, "task_ended", meanwhile)
    tracing.leak(3)
    tracing.end()
    assert tracing.windows() == [("COMPLETE", "a", 0, 0, 3)]
    tracing.down()


def test_a_limit_that_strikes_as_tracing_has_begun_leaves_nothing_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = RunBench()
    start = TracemallocSession.start

    def struck(tracer: TracemallocSession) -> bool:
        start(tracer)
        raise Struck

    monkeypatch.setattr(TracemallocSession, "start", struck)
    with pytest.raises(Struck):
        bench.run.begin()
    assert tracemalloc.is_tracing()
    bench.over()
    assert not tracemalloc.is_tracing()


def test_a_limit_that_strikes_as_a_window_closes_leaves_nothing_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = RunBench()
    assert bench.run.begin()

    def struck(_: TracemallocSession) -> bool:
        raise Struck

    monkeypatch.setattr(TracemallocSession, "ours", property(struck))
    with pytest.raises(Struck):
        bench.run.end()
    assert not tracemalloc.is_tracing()
    assert bench.over() == []
