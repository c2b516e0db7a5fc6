"""What tracing cost in the last ten minutes, from readings of totals."""

from __future__ import annotations

import pytest

from otel_celery_memory.reporter.gauges import TracingShare
from tests.unit.fakes import FakeClock


class Worker:
    """A worker whose totals grow."""

    def __init__(self) -> None:
        self.clock = FakeClock(5_000.0)
        self.task_s, self.spent_s = 100.0, 50.0
        self.tracing = TracingShare(lambda: (self.task_s, self.spent_s), self.clock)

    def work(self, wall_s: float, task_s: float, spent_s: float) -> None:
        self.clock.move(wall_s)
        self.task_s += task_s
        self.spent_s += spent_s


def test_before_any_task_has_run_there_is_no_share() -> None:
    worker = Worker()
    assert worker.tracing.share() is None
    assert worker.tracing.seconds() == (0.0, 0.0)
    worker.work(60, 0, 0)
    assert worker.tracing.share() is None


def test_totals_from_before_the_first_reading_do_not_count() -> None:
    worker = Worker()
    worker.work(60, 200, 1)
    assert worker.tracing.share() == pytest.approx(0.005)
    assert worker.tracing.seconds() == (200.0, 1.0)


def test_what_tasks_did_while_the_worker_s_first_reporter_started_counts() -> None:
    tracing = TracingShare(lambda: (20.0, 1.0), FakeClock(5_000.0), from_zero=True)
    assert tracing.seconds() == (20.0, 1.0)


def test_it_is_of_the_last_ten_minutes_whenever_it_is_asked() -> None:
    worker = Worker()
    for minute in range(60):
        worker.work(60, 60, 3.0 if minute < 30 else 0.6)
        share = worker.tracing.share()
    assert share == pytest.approx(0.01, rel=0.05)


def test_after_ten_idle_minutes_there_is_none_again() -> None:
    worker = Worker()
    worker.work(10, 10, 1)
    assert worker.tracing.share() == pytest.approx(0.1)
    for _ in range(70):
        worker.work(10, 0, 0)
        share = worker.tracing.share()
    assert share is None


def test_frequent_calls_do_not_keep_more_readings() -> None:
    worker = Worker()
    for _ in range(10_000):
        worker.work(0.5, 0.5, 0.005)
        assert worker.tracing.share() == pytest.approx(0.01)
    assert len(worker.tracing._seen) <= 62


def test_totals_that_went_back_are_no_negative_share() -> None:
    worker = Worker()
    worker.work(60, 60, -10)
    assert worker.tracing.share() == 0.0
    worker.task_s = 0.0
    assert worker.tracing.share() is None
