"""What holds the objects of a task, by what the processes' censuses found."""

from __future__ import annotations

from otel_celery_memory.captures.model import CapturedProcess
from otel_celery_memory.ipc.records import ObjectsCounted, TypeGrown
from otel_celery_memory.probes.objects import UNKNOWN_HOLDER
from otel_celery_memory.reporter.census import ProcessCensus
from otel_celery_memory.reporter.holders import TaskCensus

RUNS = 100
SESSIONS = ("orders.Session", "orders.Sessions._open → dict[…]")
CACHE = ("functools._lru_list_elem", "lru_cache of orders.price_of")


def census(
    slot: int, *grown: tuple[tuple[str, str], int], number: int = 1, runs: int = RUNS
) -> ProcessCensus:
    """What the process in this slot found: types with their holders, and how many more of them."""
    pid = 100 + slot
    rows = tuple(TypeGrown(pid, number, runs, 9 * more, more, 10, 9, *what) for what, more in grown)
    counted = ObjectsCounted(pid, 0, number, runs, 1_000, 200, 1, 0, "")
    return ProcessCensus(CapturedProcess(str(slot), pid, None), "shop.deliver", rows, counted)


def holder(found: TaskCensus) -> str:
    assert found.holder is not None
    return found.holder.chain


def test_what_multiplies_in_one_process_alone_is_not_what_the_task_leaves() -> None:
    found = TaskCensus()
    found.add(census(1, (SESSIONS, 93)))
    assert holder(found) == SESSIONS[1]
    # A cache of another task fills up in this process.
    found.add(census(0, (CACHE, 107), (SESSIONS, 91)))
    assert holder(found) == SESSIONS[1]
    assert found.holder is not None
    assert found.holder.types == ((SESSIONS[0], (93 + 91) / 200),)


def test_where_nothing_multiplies_everywhere_what_multiplies_most_is_it() -> None:
    found = TaskCensus()
    found.add(census(0, (SESSIONS, 90)))
    found.add(census(1, (CACHE, 45)))
    assert holder(found) == SESSIONS[1]


def test_a_process_that_has_found_nothing_or_ran_nothing_says_nothing() -> None:
    found = TaskCensus()
    found.add(census(0))
    found.add(census(1, (CACHE, 90), runs=0))
    assert found.holder is None
    found.add(census(2, (SESSIONS, 90)))
    assert holder(found) == SESSIONS[1]


def test_how_many_of_the_objects_are_held_by_names_is_known() -> None:
    found = TaskCensus()
    # Of ten that were sampled, nine chains are alike.
    found.add(census(0, (SESSIONS, 90)))
    assert found.holder is not None and found.holder.share == 0.9
    found.add(census(0, (SESSIONS, 90), (("list", UNKNOWN_HOLDER), 90), number=2))
    assert found.holder.share == 0.45


def test_another_census_begins_anew() -> None:
    found = TaskCensus()
    found.add(census(0, (CACHE, 107)))
    found.add(census(0, (SESSIONS, 90), number=2))
    assert holder(found) == SESSIONS[1]
