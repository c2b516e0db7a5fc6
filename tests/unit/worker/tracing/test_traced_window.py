"""A window where the heap is shared with the main process, and one of runs that overlap."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.worker.tracing.traced_window import (
    ALL,
    Found,
    InFlight,
    Left,
    TracedWindow,
    _Course,
)


@pytest.fixture
def session() -> Iterator[TracemallocSession]:
    made = TracemallocSession(1)
    made._modules_seen.update(sys.modules)
    made.free_lists.shared_heap.forked()
    yield made
    made.stop()


def test_a_window_that_cannot_open_keeps_nothing_of_the_free_lists(
    session: TracemallocSession,
) -> None:
    session._asked_directly = True
    objects = len(gc.get_objects())
    assert not TracedWindow(session).open(1)
    assert len(gc.get_objects()) < objects + 50


def test_a_run_that_keeps_nothing_has_no_traced_bytes_and_one_that_does_has_its_own(
    session: TracemallocSession,
) -> None:
    window = TracedWindow(session)
    assert window.open(1)
    found = []
    for kept_bytes in (0, 100_000, 0):
        window.run_starts("a", alone=True)
        before = session.begin()
        window.task_code_begins()
        kept = bytes(kept_bytes)
        now, peak = session.read()
        found.append((now - before, peak - before))
        window.run_ends("a")
        del kept
    assert window.close() is not None
    for kept_bytes, (left, peak) in zip((0, 100_000, 0), found, strict=True):
        assert abs(left - kept_bytes) < 1_000
        assert abs(peak - kept_bytes) < 4_000


def test_a_window_knows_whether_what_it_found_may_be_garbage_that_is_soon_collected(
    session: TracemallocSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def may_be_garbage() -> bool:
        window = TracedWindow(session)
        assert window.open(1)
        for _ in range(8):
            window.between_runs()
            window.run_starts("a", alone=True)
            window.run_ends("a")
        window.between_runs()
        found = window.close()
        assert found is not None and found.grown
        return found.may_be_garbage

    monkeypatch.setattr(gc, "get_freeze_count", lambda: 0)
    assert may_be_garbage()  # the heap is shared with the main process
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 9)
    assert not may_be_garbage()
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 0)
    session.free_lists.shared_heap.may_be_copied()
    assert not may_be_garbage()


def overlapping(session: TracemallocSession, runs: int, in_flight: int) -> Found:
    """What a window of so many runs finds, each of which has kept something, beside others that
    are in flight and hold as much."""
    window = TracedWindow(session)
    assert window.open(1)
    kept = [b""] * runs
    held = [b""] * in_flight
    for number in range(runs):
        window.between_runs()
        window.run_starts("a", alone=False)
        kept[number] = bytes(1_000)
        window.run_ends("a")
        if number == runs - 1:
            for other in range(in_flight):
                window.run_starts("b", alone=False)
                held[other] = bytes(1_000)
    window.between_runs()
    found = window.close()
    assert found is not None
    del kept, held
    return found


def test_few_runs_beside_many_in_flight_say_nothing(session: TracemallocSession) -> None:
    few = overlapping(session, 8, in_flight=4)
    assert few.grown
    assert (few.sites, few.runs) == ({}, {})


def test_of_runs_that_overlap_it_is_known_what_those_in_flight_may_hold(
    session: TracemallocSession,
) -> None:
    found = overlapping(session, 16, in_flight=4)
    assert found.in_flight["b"] == InFlight(4, 4)
    [(blocks, held)] = [
        (count, found.in_flight["b"].held(found.alive[frames])[1])
        for frames, (size, count) in found.sites.items()
        if frames[0][0] == __file__ and size == 4 * 1_033
    ]
    assert (blocks, held) == (4, 4)
    assert overlapping(session, 16, in_flight=0).in_flight == {}


def test_what_a_run_in_flight_takes_for_a_moment_is_not_in_the_course_of_levels() -> None:
    course = _Course()
    course.add(0, -8_000_000)  # it was there at the first level
    for number in range(30):
        in_flight = (3, 8_000_000) if number in (7, 20) else (0, 0)
        course.add(1 + in_flight[0], 1_000 + in_flight[1])
        course.add(-in_flight[0], -in_flight[1])
    left = course.left_since(1, malloc=True)
    assert left is not None
    assert left.malloc_bytes is not None
    assert 28 <= left.blocks <= 33
    assert 28_000 <= left.malloc_bytes <= 33_000
    assert course.left_since(len(course) - 5, malloc=True) is None
    assert course.left_since(1, malloc=False) == Left(left.blocks, None)


def test_where_runs_overlap_the_bound_of_all_is_of_the_course_of_levels(
    session: TracemallocSession,
) -> None:
    assert overlapping(session, 16, in_flight=4).left_by.keys() == {ALL}
    # Compared with the look after eight runs.
    left_bytes = overlapping(session, 32, in_flight=0).left_by[ALL].malloc_bytes
    assert left_bytes is not None
    assert 0.8 < left_bytes / (24 * 1_033) < 2.0
