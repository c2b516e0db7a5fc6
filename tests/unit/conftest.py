"""Every unit test is followed by a look at what it left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_celery_memory.probes import allocators
from tests.unit.leftovers import no_leftovers


@pytest.fixture(autouse=True)
def small_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own process has more blocks than most workers."""
    monkeypatch.setattr(allocators, "_EMPTIED_MAX_BLOCKS", 1 << 62)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No receiver, descriptor, thread or tracing outlives a test."""
    with no_leftovers():
        yield
