"""Acknowledged exits: the latest ones, read by every process that has the page."""

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


def test_a_new_page_has_no_acknowledged_exits(page: ControlPage) -> None:
    assert page.acknowledged_exits.pids() == frozenset()


def test_a_process_that_maps_the_same_page_reads_the_exits(page: ControlPage) -> None:
    page.acknowledged_exits.add(11)
    other = ControlPage(os.dup(page.fd))
    other.acknowledged_exits.add(12)
    other.close()
    assert page.acknowledged_exits.pids() == {11, 12}


def test_new_exits_overwrite_the_oldest(page: ControlPage) -> None:
    for pid in range(1, ACKNOWLEDGED_EXITS_MAX + 3):
        page.acknowledged_exits.add(pid)
    assert page.acknowledged_exits.pids() == set(range(3, ACKNOWLEDGED_EXITS_MAX + 3))


def test_garbage_is_no_exit_and_the_next_exit_is_added(page: ControlPage) -> None:
    os.pwrite(page.fd, b"\xff" * PAGE_BYTES, 0)
    assert page.acknowledged_exits.pids() == frozenset()
    page.acknowledged_exits.add(11)
    assert page.acknowledged_exits.pids() == {11}


def test_exits_overwrite_no_counter_and_no_task_in_flight(page: ControlPage) -> None:
    for pid in range(1, 2 * ACKNOWLEDGED_EXITS_MAX):
        page.acknowledged_exits.add(pid)
    assert (page.drop_counters.counts().total, page.in_flight(510), page.commands_version()) == (
        0,
        b"",
        bytes(8),
    )
