"""Levels of processes that can be compared, step by step."""

from __future__ import annotations

import pytest

from otel_celery_memory.ipc.records import (
    NO_SPAN,
    FloorMeasured,
    HeapSampled,
    RunRetained,
    TaskFinished,
)
from otel_celery_memory.leaks.resource import Resource
from otel_celery_memory.reporter.levels import WARM_UP_S, LevelSteps

KIB = 1024
STEP_S = 5.0
PID, OTHER_PID = 11, 12


FREED_BYTES = 700


def sampled(pid: int, at_s: float, level_bytes: int | None) -> RunRetained:
    """A sampled run, of which the level counts here."""
    return RunRetained(pid, int(at_s * 1e9), 0, 1, 0, 0, 0, 0, 0, level_bytes, "t")


def finished(pid: int, at_s: float) -> TaskFinished:
    """A run that has ended."""
    at_ns = int(at_s * 1e9)
    return TaskFinished(
        *(pid, at_ns, at_ns, 0, 0, None, None, None, None, 1, 0, NO_SPAN, "id", "t", "SUCCESS", "")
    )


def floor(pid: int, at_s: float, heap_bytes: int | None) -> FloorMeasured:
    """The level after a full collection."""
    at_ns = int(at_s * 1e9)
    return FloorMeasured(pid, at_ns, 0, 0, heap_bytes, 0, None, None, 0, FREED_BYTES, 0)


@pytest.fixture
def steps() -> LevelSteps:
    """Of two processes that have been at work for a while, at 100 KiB each."""
    steps = LevelSteps(100)
    for pid in (PID, OTHER_PID):
        steps.retained(sampled(pid, 0, 100 * KIB))
    steps.step(WARM_UP_S)
    return steps


def test_changes_of_all_processes_add_up(steps: LevelSteps) -> None:
    steps.retained(sampled(PID, WARM_UP_S, 103 * KIB))
    steps.retained(sampled(OTHER_PID, WARM_UP_S, 104 * KIB))
    for _ in range(3):
        steps.finished(finished(PID, WARM_UP_S))
    change = steps.step(WARM_UP_S + STEP_S)[Resource.HEAP]
    assert (change.grown, change.runs, change.processes) == (7 * KIB, 3, 2)
    assert change.age_s == WARM_UP_S + STEP_S


def test_the_lowest_level_of_a_step_counts(steps: LevelSteps) -> None:
    for level in (900, 101, 500):
        steps.retained(sampled(PID, WARM_UP_S, level * KIB))
    assert steps.step(WARM_UP_S + STEP_S)[Resource.HEAP].grown == 1 * KIB


def test_a_process_that_was_not_sampled_in_a_step_is_compared_later(steps: LevelSteps) -> None:
    steps.finished(finished(PID, WARM_UP_S))
    assert steps.step(WARM_UP_S + STEP_S) == {}
    steps.finished(finished(PID, WARM_UP_S))
    steps.retained(sampled(PID, WARM_UP_S, 101 * KIB))
    change = steps.step(WARM_UP_S + 2 * STEP_S)[Resource.HEAP]
    assert (change.grown, change.runs) == (1 * KIB, 2)


def test_a_process_that_has_just_begun_does_not_grow() -> None:
    steps = LevelSteps(100)
    for second in range(0, int(WARM_UP_S), 5):
        steps.retained(sampled(PID, second, second * 1_000 * KIB))
        assert steps.step(second) == {}


def test_a_process_in_the_place_of_another_is_no_drop(steps: LevelSteps) -> None:
    steps.gone(PID)
    steps.retained(sampled(99, WARM_UP_S, 1))
    assert steps.step(WARM_UP_S + STEP_S) == {}


def test_while_the_worker_warms_up_levels_are_noted_and_no_more(steps: LevelSteps) -> None:
    steps.retained(sampled(PID, WARM_UP_S, 900 * KIB))
    assert steps.step(WARM_UP_S + STEP_S, counts=False) == {}
    steps.retained(sampled(PID, WARM_UP_S, 901 * KIB))
    assert steps.step(WARM_UP_S + 2 * STEP_S)[Resource.HEAP].grown == 1 * KIB


def test_the_first_full_collection_is_compared_with_the_first_level(steps: LevelSteps) -> None:
    for level in (100, 190):
        steps.retained(sampled(PID, WARM_UP_S, level * KIB))
        steps.step(WARM_UP_S + STEP_S)
    steps.floor(floor(PID, WARM_UP_S + 6, 180 * KIB))
    steps.retained(sampled(PID, WARM_UP_S + 8, 200 * KIB))
    assert steps.step(WARM_UP_S + 2 * STEP_S)[Resource.HEAP].floor == 80 * KIB


def test_what_grows_between_full_collections_is_known_apart(steps: LevelSteps) -> None:
    steps.floor(floor(PID, 1, 50 * KIB))
    steps.retained(sampled(PID, WARM_UP_S, 200 * KIB))
    assert steps.step(WARM_UP_S + STEP_S)[Resource.HEAP].floor == -50 * KIB
    steps.floor(floor(PID, WARM_UP_S + 6, 52 * KIB))
    steps.floor(floor(PID, WARM_UP_S + 7, 53 * KIB))
    steps.retained(sampled(PID, WARM_UP_S + 8, 300 * KIB))
    change = steps.step(WARM_UP_S + 2 * STEP_S)[Resource.HEAP]
    assert (change.grown, change.floor, change.garbage) == (100 * KIB, 3 * KIB, 2 * FREED_BYTES)


def test_where_no_run_is_sampled_the_heap_is_judged_by_its_readings() -> None:
    steps = LevelSteps(100)
    for at_s in (100.0, 200.0):
        at_ns = int(at_s * 1e9)
        steps.heap(HeapSampled(PID, at_ns, int(at_s), int(at_s) * KIB, 10 * KIB))
        changes = steps.step(at_s)
    assert changes[Resource.HEAP].grown == 100 * KIB + 100 * 100
    assert changes[Resource.MALLOC_FREE].grown == 0


def test_resident_memory_that_no_allocator_accounts_for_is_a_resource() -> None:
    steps = LevelSteps(100)
    for at_s, rss in ((100.0, 10 << 20), (200.0, 15 << 20)):
        steps.heap(HeapSampled(PID, int(at_s * 1e9), 1_000, 2 << 20, 1 << 20))
        steps.read(PID, at_s, {Resource.THREADS: 3, Resource.OPEN_FILES: None}, rss)
        changes = steps.step(at_s)
    assert changes[Resource.OTHER].grown == 5 << 20
    assert changes[Resource.THREADS].grown == 0
    assert Resource.OPEN_FILES not in changes


def test_mappings_that_grow_beside_a_heap_of_many_small_blocks_are_seen() -> None:
    steps = LevelSteps(100)
    for at_s, rss in ((100.0, 80 << 20), (200.0, 85 << 20)):
        steps.heap(HeapSampled(PID, int(at_s * 1e9), 300_000, 20 << 20, 1 << 20))
        steps.read(PID, at_s, {}, rss)
        changes = steps.step(at_s)
    assert changes[Resource.OTHER].grown == 5 << 20


def test_what_is_kept_of_processes_is_bounded() -> None:
    steps = LevelSteps(100)
    for pid in range(2_000):
        steps.retained(sampled(pid, 1, 1))
    steps.step(WARM_UP_S)
    for pid in range(2_000):
        steps.retained(sampled(pid, WARM_UP_S + 2, 2))
    assert steps.step(WARM_UP_S * 2 + 3).get(Resource.HEAP) is None


def test_a_level_that_is_not_known_changes_nothing(steps: LevelSteps) -> None:
    steps.retained(sampled(PID, WARM_UP_S, None))
    steps.floor(floor(PID, WARM_UP_S, None))
    assert steps.step(WARM_UP_S + STEP_S) == {}
