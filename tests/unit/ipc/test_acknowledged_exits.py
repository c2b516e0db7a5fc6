"""The ends that were told: the last ones, seen by who has the page, none in garbage."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.control_page import PAGE_BYTES, TOLD_MAX, ControlPage


@pytest.fixture
def page() -> Iterator[ControlPage]:
    made = ControlPage.create()
    yield made
    made.close()


def test_nothing_has_been_told_on_a_new_page(page: ControlPage) -> None:
    assert page.told.pids() == frozenset()


def test_what_was_told_is_seen_by_who_maps_the_same_page(page: ControlPage) -> None:
    page.told.add(11)
    other = ControlPage(os.dup(page.fd))
    other.told.add(12)
    other.close()
    assert page.told.pids() == {11, 12}


def test_the_oldest_make_room(page: ControlPage) -> None:
    for pid in range(1, TOLD_MAX + 3):
        page.told.add(pid)
    assert page.told.pids() == set(range(3, TOLD_MAX + 3))


def test_garbage_tells_of_nobody_and_does_not_stop_what_is_told_next(page: ControlPage) -> None:
    os.pwrite(page.fd, b"\xff" * PAGE_BYTES, 0)
    assert page.told.pids() == frozenset()
    page.told.add(11)
    assert page.told.pids() == {11}


def test_what_is_told_lies_beside_what_is_counted_and_held(page: ControlPage) -> None:
    for pid in range(1, 2 * TOLD_MAX):
        page.told.add(pid)
    assert (page.dropped.counts().total, page.held(510), page.orders_number()) == (0, b"", bytes(8))
