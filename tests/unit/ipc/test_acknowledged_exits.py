"""The ends that were told: the last ones, seen by who has the page, none in garbage."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.control_page import ACKNOWLEDGED_EXITS_MAX, PAGE_BYTES, ControlPage


@pytest.fixture
def page() -> Iterator[ControlPage]:
    made = ControlPage.create()
    yield made
    made.close()


def test_nothing_has_been_told_on_a_new_page(page: ControlPage) -> None:
    assert page.acknowledged_exits.pids() == frozenset()


def test_what_was_told_is_seen_by_who_maps_the_same_page(page: ControlPage) -> None:
    page.acknowledged_exits.add(11)
    other = ControlPage(os.dup(page.fd))
    other.acknowledged_exits.add(12)
    other.close()
    assert page.acknowledged_exits.pids() == {11, 12}


def test_the_oldest_make_room(page: ControlPage) -> None:
    for pid in range(1, ACKNOWLEDGED_EXITS_MAX + 3):
        page.acknowledged_exits.add(pid)
    assert page.acknowledged_exits.pids() == set(range(3, ACKNOWLEDGED_EXITS_MAX + 3))


def test_garbage_tells_of_nobody_and_does_not_stop_what_is_told_next(page: ControlPage) -> None:
    os.pwrite(page.fd, b"\xff" * PAGE_BYTES, 0)
    assert page.acknowledged_exits.pids() == frozenset()
    page.acknowledged_exits.add(11)
    assert page.acknowledged_exits.pids() == {11}


def test_what_is_told_lies_beside_what_is_counted_and_held(page: ControlPage) -> None:
    for pid in range(1, 2 * ACKNOWLEDGED_EXITS_MAX):
        page.acknowledged_exits.add(pid)
    assert (page.drop_counters.counts().total, page.in_flight(510), page.commands_version()) == (
        0,
        b"",
        bytes(8),
    )
