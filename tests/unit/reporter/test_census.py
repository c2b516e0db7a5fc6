"""What the processes send of a census becomes its rows; it ends when all have sent, or in time."""

from __future__ import annotations

import pytest

from otel_celery_memory.captures.model import CapturedProcess
from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.records import ObjectsCounted, TypeGrown
from otel_celery_memory.reporter.census import GRACE_S, Censuses
from tests.unit.fakes import FakeClock

FIRST, SECOND = CapturedProcess("0", 101, 1), CapturedProcess("1", 102, 1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


@pytest.fixture
def censuses(clock: FakeClock) -> Censuses:
    made = Censuses(clock)
    made.begin(Commands(census=3, runs=10, until_s=1_120.0))
    return made


def grown(pid: int, growth: int, type_name: str = "app.Order", census: int = 3) -> TypeGrown:
    return TypeGrown(pid, census, 10, 2 * growth, growth, 8, 7, type_name, "app.SEEN")


def counted(pid: int, problem: str = "", census: int = 3) -> ObjectsCounted:
    return ObjectsCounted(pid, 1, census, 10, 5_000, 100, 1, 9, problem)


def state(censuses: Censuses) -> str:
    (row,) = censuses.view()
    return str(row["state"])


def test_it_is_complete_when_each_process_has_sent_its_own(censuses: Censuses) -> None:
    censuses.update([FIRST, SECOND])
    assert state(censuses) == "running"
    censuses.grown(grown(101, 50))
    assert censuses.counted(counted(101), FIRST) is not None
    censuses.update([FIRST, SECOND])
    assert state(censuses) == "running"
    censuses.counted(counted(102, "a limit of memory is near"), SECOND)
    censuses.update([FIRST, SECOND])
    assert censuses.view() == [
        {"number": 3, "state": "complete", "kind": "census", "runs": 20, "error": None}
    ]


def test_the_types_that_grew_most_come_first_and_then_who_took_none(censuses: Censuses) -> None:
    censuses.grown(grown(101, 50))
    censuses.grown(grown(102, 80, "dict"))
    censuses.counted(counted(101), FIRST)
    censuses.counted(counted(102), SECOND)
    censuses.counted(counted(103, "it runs others"), CapturedProcess("2", 103, 1))
    rows = censuses.objects()
    assert [(row["slot"], row.get("type"), row["problem"]) for row in rows] == [
        *(("1", "dict", None), ("0", "app.Order", None), ("2", None, "it runs others"))
    ]
    assert rows[1] == {
        **{"slot": "0", "type": "app.Order", "objects": 100, "growth": 50, "runs": 10},
        **{"holder": "app.SEEN", "alike": 7, "sampled": 8, "problem": None},
    }


def test_containers_of_one_place_are_one_row_of_their_process(censuses: Censuses) -> None:
    """As of a dict of lists of text: each list has a row, and all have the same chain."""
    for growth in (30, 50, 40):
        censuses.grown(grown(101, growth, "str"))
    censuses.grown(grown(101, 60, "app.Order"))
    censuses.grown(grown(101, 70, "str")._replace(holder="app.OTHER"))
    found = censuses.counted(counted(101), FIRST)
    assert found is not None
    assert [(row.type, row.holder, row.growth, row.objects) for row in found.grown] == [
        ("str", "app.SEEN", 120, 240),
        ("str", "app.OTHER", 70, 140),
        ("app.Order", "app.SEEN", 60, 120),
    ]
    assert (found.grown[0].alike, found.grown[0].sampled) == (21, 24)
    # Two processes have a row each.
    censuses.grown(grown(102, 30, "str"))
    censuses.counted(counted(102), SECOND)
    assert [(row["slot"], row["growth"]) for row in censuses.objects()] == [
        ("0", 120),
        *(("0", 70), ("0", 60), ("1", 30)),
    ]


def test_it_ends_in_time_without_the_others_and_says_if_there_was_none(
    censuses: Censuses, clock: FakeClock
) -> None:
    clock.move(120.0 + GRACE_S - 1)
    censuses.update([FIRST])
    assert state(censuses) == "running"
    clock.move(1.0)
    censuses.update([FIRST])
    assert censuses.view()[0]["error"] == "no process had these runs"
    # Who comes late is shown all the same.
    censuses.grown(grown(101, 50))
    censuses.counted(counted(101), FIRST)
    assert (censuses.view()[0]["error"], len(censuses.objects())) == (None, 1)


def test_the_worker_s_end_ends_it(censuses: Censuses) -> None:
    censuses.update([FIRST], last=True)
    assert state(censuses) == "complete"


def test_records_of_another_census_or_more_than_there_can_be_change_nothing(
    censuses: Censuses,
) -> None:
    read: list[int] = []
    censuses.read_orders = lambda: read.append(1)
    censuses.grown(grown(101, 50, census=2))
    assert censuses.counted(counted(101, census=2), FIRST) is None
    assert read == []
    assert censuses.counted(counted(101, census=4), FIRST) is None
    assert read == [1]
    for pid in range(3_000):
        for _ in range(30):
            censuses.grown(grown(pid, 1))
        censuses.counted(counted(pid), CapturedProcess(str(pid), pid, 1))
    assert len(censuses.objects()) <= 20 * 1_000


def test_the_next_census_replaces_the_one_before_and_an_order_read_twice_does_not(
    censuses: Censuses,
) -> None:
    censuses.grown(grown(101, 50))
    censuses.counted(counted(101), FIRST)
    censuses.begin(Commands(census=3))
    censuses.begin(Commands(capture=4))
    assert len(censuses.objects()) == 1
    censuses.begin(Commands(census=5, until_s=1_100.0))
    assert (censuses.objects(), censuses.view()[0]["number"]) == ([], 5)
    assert Censuses().view() == []
