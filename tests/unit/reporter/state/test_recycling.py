"""Children and their successors matched by slot and time, in whatever order the records come."""

from __future__ import annotations

import pytest

from otel_celery_memory.ipc.records import MAIN_SLOT, ExitReason, ProcessDown, ProcessUp
from otel_celery_memory.reporter.state.exits import Life, ProcessEnd, Recycling, Replacement
from otel_celery_memory.reporter.state.processes import ProcessState

S = 1_000_000_000


def up(pid: int, at_s: int, slot: int = 0, rss_bytes: int = 1_000) -> ProcessUp:
    return ProcessUp(pid, at_s * S, slot, rss_bytes)


def ended(
    pid: int,
    up_s: int | None,
    down_s: int,
    *,
    slot: int | None = 0,
    reason: ExitReason = ExitReason.MAX_TASKS,
    rss_bytes: int | None = 9_000,
    tasks: int = 7,
    goodbye: bool = True,
) -> ProcessEnd:
    """It was gone 2 s after it said goodbye."""
    down = ProcessDown(pid, down_s * S, slot or 0, 155, 0, None, "max_tasks", "")
    process = ProcessState(
        pid,
        slot,
        rss_bytes=rss_bytes,
        up_ns=None if up_s is None else up_s * S,
        tasks=tasks,
        down=down if goodbye else None,
    )
    return ProcessEnd(process, reason, None, None, (down_s + 2) * S)


def test_a_life_is_from_readiness_to_goodbye() -> None:
    assert Recycling().ended(ended(1, 10, 15))[0] == Life("max_tasks", 7, 5.0)


def test_without_a_goodbye_it_lasts_until_it_is_gone() -> None:
    end = ended(1, 10, 15, goodbye=False, reason=ExitReason.KILLED)
    assert Recycling().ended(end)[0] == Life("killed", 7, 7.0)


def test_a_child_with_an_unknown_start_has_no_life() -> None:
    assert Recycling().ended(ended(1, None, 15))[0] is None


def test_a_successor_after_the_classified_end_ends_the_gap() -> None:
    recycling = Recycling()
    recycling.up(up(1, 10))
    assert recycling.ended(ended(1, 10, 15))[1] is None
    assert recycling.up(up(2, 18)) == Replacement("max_tasks", 3.0, 8_000)
    assert recycling.up(up(3, 19)) is None


def test_a_successor_before_the_classified_end_does_so_too() -> None:
    recycling = Recycling()
    for pid, at_s in ((1, 10), (2, 16), (3, 21)):
        assert recycling.up(up(pid, at_s)) is None
    # The second end is classified before the first.
    assert recycling.ended(ended(2, 16, 20))[1] == Replacement("max_tasks", 1.0, 8_000)
    assert recycling.ended(ended(1, 10, 15))[1] == Replacement("max_tasks", 1.0, 8_000)


def test_each_slot_has_successors_of_its_own() -> None:
    recycling = Recycling()
    assert recycling.ended(ended(1, 10, 15, slot=1))[1] is None
    assert recycling.up(up(2, 16, slot=0)) is None
    assert recycling.up(up(3, 17, slot=1)) == Replacement("max_tasks", 2.0, 8_000)


@pytest.mark.parametrize("reason", [ExitReason.SHUTDOWN, ExitReason.AUTOSCALE])
def test_a_child_that_is_not_replaced_leaves_no_gap(reason: ExitReason) -> None:
    recycling = Recycling()
    life, replacement = recycling.ended(ended(1, 10, 15, reason=reason))
    assert (life is not None, replacement) == (True, None)
    assert recycling.up(up(2, 1_000)) is None


def test_a_roll_call_is_no_successor() -> None:
    recycling = Recycling()
    recycling.ended(ended(1, 10, 15))
    assert recycling.up(up(2, 16, rss_bytes=0)) is None
    assert recycling.up(up(2, 17)) is not None


def test_a_successor_as_large_as_the_one_before_frees_nothing() -> None:
    recycling = Recycling()
    recycling.ended(ended(1, 10, 15, rss_bytes=500))
    assert recycling.up(up(2, 16)) == Replacement("max_tasks", 1.0, 0)
    recycling.ended(ended(2, 16, 20, rss_bytes=None))
    assert recycling.up(up(3, 21)) == Replacement("max_tasks", 1.0, None)


@pytest.mark.parametrize("slot", [MAIN_SLOT, None, 10_000])
def test_only_children_of_the_pool_are_followed(slot: int | None) -> None:
    recycling = Recycling()
    assert recycling.ended(ended(1, 10, 15, slot=slot)) == (None, None)
    assert recycling.up(up(2, 16, slot=-7 if slot is None else slot)) is None
    assert (recycling._ups, recycling._vacant) == ({}, {})


def test_starts_kept_of_a_slot_are_bounded() -> None:
    recycling = Recycling()
    for number in range(100):
        recycling.up(up(number, number))
    assert len(recycling._ups[0]) == 32
