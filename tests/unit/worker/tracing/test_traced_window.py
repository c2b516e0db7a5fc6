"""A window where the heap is shared with the main process: objects are taken out of free lists."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from otel_celery_memory.probes.tracemalloc_session import TracemallocSession
from otel_celery_memory.worker.tracing.traced_window import TracedWindow


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
        window.run_ends()
        del kept
    assert window.close() is not None
    for kept_bytes, (left, peak) in zip((0, 100_000, 0), found, strict=True):
        assert abs(left - kept_bytes) < 1_000
        assert abs(peak - kept_bytes) < 4_000
