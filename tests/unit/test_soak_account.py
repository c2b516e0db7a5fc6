"""How the soak makes up its books: what is right, what is missing, who was harmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.receiver import Event, Point
from soak.account import Balance, begun, deaths, harmed, is_right, reported_twice_max
from soak.load import Sent
from soak.marks import END, START, Mark, Marks, write_mark
from soak.plan import Fault, Scale

S = 1_000_000_000
STARTED = {task_id: Mark(START, task_id, 11, 0) for task_id in ("a", "b")}


def lost(pid: int, task_id: str | None, received_ns: int = 0) -> Event:
    """The event of a lost process."""
    attributes = {"process.pid": pid, **({"celery.task.id": task_id} if task_id else {})}
    return Event(
        "celery.worker.process_lost", "ERROR", "", 0, {}, attributes, received_ns=received_ns
    )


@pytest.mark.parametrize(
    ("task_id", "last", "right"),
    [
        ("b", Mark(START, "b", 11, 0), True),
        ("a", Mark(START, "b", 11, 0), False),
        (None, Mark(START, "b", 11, 0), False),
        ("b", Mark(END, "b", 11, 0), True),
        ("a", Mark(END, "b", 11, 0), False),
        (None, Mark(END, "b", 11, 0), True),
        ("not begun", Mark(END, "b", 11, 0), True),
        (None, None, True),
        ("a", None, False),
    ],
)
def test_a_death_is_reported_rightly_if_its_marks_do_not_contradict(
    task_id: str | None, last: Mark | None, right: bool
) -> None:
    assert is_right(task_id, last, STARTED) is right


def test_each_death_is_reported_unreported_wrong_or_reported_twice() -> None:
    marks = Marks(Path(), started=dict(STARTED), last_of={11: Mark(START, "a", 11, 0)})
    found = deaths({11, 12, 13}, [lost(11, "b"), lost(12, None), lost(12, None)], marks)
    assert (found.killed, found.reported, found.reported_rightly, found.reported_twice) == (
        3,
        2,
        1,
        1,
    )
    assert (found.unreported_pids, len(found.wrong), found.all_right) == ((13,), 1, False)


def test_a_death_that_is_reported_once_with_its_task_is_right_and_without_it_is_not() -> None:
    marks = Marks(Path(), started=dict(STARTED), last_of={11: Mark(START, "a", 11, 0)})
    assert deaths({11}, [lost(11, "a")], marks).all_right
    assert not deaths({11}, [lost(11, None)], marks).all_right
    assert not deaths({11}, [lost(11, "a"), lost(11, "a")], marks).all_right
    assert not deaths({11}, [], marks).all_right


def test_a_death_may_be_reported_again_after_the_last_request_of_a_killed_reporter() -> None:
    marks = Marks(Path())
    events = [
        *(lost(11, None, 1 * S), lost(12, None, 2 * S), lost(13, None, 2 * S)),
        *(lost(11, None, 5 * S), lost(12, None, 5 * S), lost(14, None, 5 * S)),
    ]
    found = deaths({11, 12, 13, 14}, events, marks, [2 * S + 1])
    assert (found.reported_rightly, found.reported_twice, found.reported_again) == (4, 1, 1)
    # Received when its sender was dead.
    assert deaths({12, 13}, events, marks, [2 * S - 1]).all_right
    assert not deaths({12, 13}, [*events, lost(12, None, 6 * S)], marks, [2 * S]).all_right
    assert not deaths({12, 13}, events, marks).all_right
    # It had long been answered.
    assert not deaths({12, 13}, events, marks, [4 * S + 1]).all_right


def test_a_death_that_is_reported_again_must_be_right_both_times() -> None:
    marks = Marks(Path(), started=dict(STARTED), last_of={11: Mark(START, "a", 11, 0)})
    events = [lost(11, "a", 1 * S), lost(11, "b", 2 * S)]
    found = deaths({11}, events, marks, [1 * S])
    assert (found.reported_again, len(found.wrong), found.all_right) == (1, 1, False)


def test_a_balance_holds_if_no_task_is_missing_and_few_enough_are_exported_twice() -> None:
    assert Balance("", 10, 8, 2, 0, 0, 0).holds
    assert Balance("", 10, 5, 2, 3, 9, 0).holds
    assert Balance("", 10, 6, 2, 3, 0, 1).holds
    assert not Balance("", 10, 5, 2, 2, 9, 0).holds
    assert not Balance("", 10, 5, 2, 2, 0, 1).holds
    assert not Balance("", 10, 7, 2, 3, 0, 1).holds


def test_a_task_killed_before_its_first_mark_has_begun_if_it_is_named() -> None:
    marks = Marks(Path(), started=dict(STARTED))
    assert begun(marks, [lost(11, "c"), lost(12, None)]) == {"a", "b", "c"}


def test_reported_twice_is_at_most_what_ended_since_the_export_before_the_last_one() -> None:
    points = [
        Point("celery.task.memory.measured", "", {}, {}, 0, time_s * S, 0) for time_s in (1, 2, 4)
    ]
    ended = {str(n): Mark(END, str(n), 11, n * S // 2) for n in range(10)}
    # From 0.7 s to 3 s: those at 1, 1.5, 2, 2.5 and 3 s.
    assert reported_twice_max([3 * S], points, ended) == 5


def test_only_a_task_that_our_kill_took_may_be_lost() -> None:
    sent = [Sent("a", "double", 3), Sent("b", "double", 4), Sent("c", "fail", 5)]
    gone = ("FAILURE", ("WorkerLostError", "…"))
    found = {"a": ("SUCCESS", 6), "b": gone, "c": ("FAILURE", ("ValueError", "number 5"))}
    marks = Marks(Path(), started={"b": Mark(START, "b", 11, 0)})
    assert harmed(sent, found, marks, {11}) == []
    assert len(harmed(sent, found, marks, {12})) == 1
    assert len(harmed(sent, {}, marks, {11})) == 3


def test_marks_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    with path.open("ab", buffering=0) as file:
        marks = Marks(path)
        write_mark(file.fileno(), START, "a")
        file.write(b"E a 1")
        marks.read()
        assert (list(marks.started), list(marks.ended), marks.starts) == (["a"], [], 1)
        file.write(b"1 7\n")
        marks.read()
    assert marks.ended == {"a": Mark(END, "a", 11, 7)}


def test_the_full_run_kills_five_hundred_children_and_twenty_reporters() -> None:
    phases = Scale(100_000, 200, 20, 8).phases()
    faults = [each.fault for phase in phases for each in phase.injections]
    assert sum(phase.tasks for phase in phases) == 100_000
    assert faults.count(Fault.KILL_CHILD) == 500
    assert faults.count(Fault.KILL_REPORTER) == 20
    assert all(each.at < phase.tasks for phase in phases for each in phase.injections)
