"""The lowest levels of the heaps, behind garbage that comes and goes."""

from __future__ import annotations

from otel_celery_memory.reporter.lowest_levels import LowestLevels


def risen_after(steps: int, leak: float, tooth: int = 13, garbage: float = 1_000.0) -> float | None:
    """So many steps of a leak behind a sawtooth of garbage."""
    levels, before = LowestLevels(), 0.0
    for step in range(steps):
        level = leak * step + garbage * (step % tooth)
        levels.add(step * 5.0, level - before)
        before = level
    risen = levels.risen()
    return None if risen is None else risen.grown


def test_nothing_is_said_while_the_windows_overlap() -> None:
    assert risen_after(35, leak=10) is None


def test_a_leak_is_seen_behind_garbage_that_is_a_hundred_times_as_much() -> None:
    assert risen_after(60, leak=10) == 10 * 52  # from the first tooth's begin to the last one's


def test_garbage_alone_does_not_rise() -> None:
    assert risen_after(60, leak=0) == 0


def test_what_has_stopped_is_forgotten() -> None:
    levels = LowestLevels()
    for step in range(200):
        levels.add(step * 5.0, 10.0 if step < 100 else 0.0)
    risen = levels.risen()
    assert risen is not None and risen.grown == 0


def test_after_a_fork_nothing_is_known() -> None:
    levels = LowestLevels()
    for step in range(60):
        levels.add(step, 1.0)
    levels.clear()
    assert levels.risen() is None
