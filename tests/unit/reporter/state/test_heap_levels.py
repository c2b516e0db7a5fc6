"""By how much the heaps of processes grow."""

from __future__ import annotations

from otel_celery_memory.reporter.state.heap_levels import HeapLevels

S = 1_000_000_000


def test_of_processes_that_are_gone_nothing_is_kept() -> None:
    levels = HeapLevels()
    for pid in range(2_000):
        levels.ran(pid, pid * S // 10, "a")
    assert levels.processes() <= 512
    levels.ran(3_000, 1_000 * S, "a")
    assert levels.processes() == 1
