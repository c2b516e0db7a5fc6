"""The control page's counters: one cell a slot, read by every process with its descriptor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from otel_celery_memory.ipc.commands import COMMANDS_BYTES, Commands
from otel_celery_memory.ipc.control_page import PAGE_BYTES, SLOTS, ControlPage, DropCounts
from tests.unit.fakes import FakeClock
from tests.unit.forks import in_a_fork


@pytest.fixture
def page() -> Iterator[ControlPage]:
    made = ControlPage.create()
    yield made
    made.close()


FIRST_CELL, CELL_BYTES = COMMANDS_BYTES + SLOTS * (9 + 2) * 8, 2 * 8
ENDS, OTHERS = 0, 8
"""Where they are in a cell."""


def cells(page: ControlPage, kind: int = OTHERS) -> dict[int, int]:
    """The cells that are not zero."""
    content = os.pread(page.fd, PAGE_BYTES, 0)
    values = [
        int.from_bytes(content[at + kind : at + kind + 8], "little")
        for at in range(FIRST_CELL, FIRST_CELL + SLOTS * CELL_BYTES, CELL_BYTES)
    ]
    return {cell: value for cell, value in enumerate(values) if value}


def test_a_new_page_has_dropped_nothing(page: ControlPage) -> None:
    assert (page.drop_counters.counts().total, cells(page)) == (0, {})


def test_each_slot_counts_in_a_cell_of_its_own(page: ControlPage) -> None:
    for slot in (-1, 0, 0, 7, 7, 7):
        page.drop_counters.count(slot)
    assert cells(page) == {0: 1, 1: 2, 8: 3}
    assert page.drop_counters.counts().total == 6


def test_ends_of_tasks_are_counted_apart(page: ControlPage) -> None:
    for slot, task_end in ((0, True), (0, True), (0, False), (7, True)):
        page.drop_counters.count(slot, task_end=task_end)
    page.drop_counters.count_damaged(4)
    assert (cells(page, ENDS), cells(page)) == ({1: 2, 8: 1}, {1: 1})
    assert page.drop_counters.counts() == DropCounts(task_ends=3, others=1, damaged=4)
    assert page.drop_counters.counts().since(DropCounts(1, 1, 0)) == DropCounts(2, 0, 4)


def test_slots_beyond_the_page_share_its_last_cell(page: ControlPage) -> None:
    for slot in (SLOTS - 2, SLOTS - 1, 10_000):
        page.drop_counters.count(slot)
    assert cells(page) == {SLOTS - 1: 3}


def test_a_count_wraps_and_does_not_raise(page: ControlPage) -> None:
    os.pwrite(page.fd, b"\xff" * 8, FIRST_CELL + OTHERS)
    page.drop_counters.count(-1)
    assert cells(page) == {}


def test_each_heartbeat_changes_only_the_heartbeat() -> None:
    clock = FakeClock(100.0)
    page = ControlPage.create(clock_s=clock)
    seen = [page.last_beat()]
    for _ in range(3):
        clock.move(0.5)
        page.beat()
        seen.append(page.last_beat())
    assert (len(set(seen)), page.drop_counters.counts().total, page.commands()) == (
        4,
        0,
        Commands(),
    )
    page.close()


def test_damaged_frames_are_counted_too(page: ControlPage) -> None:
    page.drop_counters.count(0)
    page.drop_counters.count_damaged(5)
    assert (page.drop_counters.counts().total, cells(page)) == (6, {1: 1})


def test_counts_of_a_page_full_of_garbage_fit_into_otlp(
    page: ControlPage,
) -> None:
    os.pwrite(page.fd, b"\xff" * PAGE_BYTES, 0)
    assert page.drop_counters.counts().total == 2**63 - 1


def test_a_process_that_maps_the_descriptor_reads_the_same_counts(page: ControlPage) -> None:
    other = ControlPage(os.dup(page.fd))
    other.drop_counters.count(3)
    page.drop_counters.count(3)
    assert (page.drop_counters.counts().total, other.drop_counters.counts().total) == (2, 2)
    other.close()


def test_a_forked_child_s_counts_are_seen_by_its_parent(page: ControlPage) -> None:
    in_a_fork(lambda: page.drop_counters.count(0))
    assert cells(page) == {1: 1}


def test_programs_that_a_task_starts_do_not_inherit_the_page(page: ControlPage) -> None:
    assert os.get_inheritable(page.fd) is False
