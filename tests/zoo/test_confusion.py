"""The confusion matrix, of judgements that are made up."""

from __future__ import annotations

from tests.truth.case import Case, Shape
from tests.zoo.confusion import Confusion, confusion, matrix
from tests.zoo.judgement import Judgement, judge
from tests.zoo.said import Said

SUSPECTED = Said(10, "suspected", "python", "task", "feed", "feed.py:7")
LEAKING = Said(20, "leaking", "python", "task", "feed", "feed.py:7")
INNOCENT = Said(20, "leaking", "python", "task", "mail")
EITHER = ("suspected", "leaking")


def judged(leaks: str | None, *said: Said) -> Judgement:
    case = Case("a case", leaks, {"feed": 10}, fills=() if leaks else ("feed",))
    return judge(Shape(case, "shop", ("feed.py:7",) if leaks else ()), said, 0, lambda _: 1)


FOUND = judged("feed", SUSPECTED, LEAKING)
ONLY_SUSPECTED = judged("feed", SUSPECTED)
MISSED = judged("feed")
MISTAKEN = judged("feed", INNOCENT)
QUIET = judged(None)
FILLED = judged(None, SUSPECTED)
ALARMED = judged(None, LEAKING)


def test_each_case_is_in_its_field() -> None:
    every = [FOUND, ONLY_SUSPECTED, MISSED, QUIET, FILLED, ALARMED]
    assert confusion(every, ("leaking",)) == Confusion(1, 2, 1, 2)
    assert confusion(every, EITHER) == Confusion(2, 1, 2, 1)


def test_naming_somebody_else_is_a_miss_and_a_false_alarm() -> None:
    assert confusion([MISTAKEN], EITHER) == Confusion(0, 1, 1, 0)


def test_precision_is_of_what_was_said_and_recall_of_what_leaks() -> None:
    found = Confusion(9, 3, 1, 5)
    assert found.precision == 0.9
    assert found.recall == 0.75


def test_of_nothing_there_is_no_share() -> None:
    found = confusion([], EITHER)
    assert found.precision is None
    assert found.recall is None


def test_the_matrix_has_both_readings_and_resin_s() -> None:
    text = matrix([FOUND, ONLY_SUSPECTED, MISSED, QUIET, FILLED, MISTAKEN])
    lines = [line.split() for line in text.splitlines()]
    assert lines[1] == ["said", "to", "be", "leaking", "1", "3", "1", "2", "50%", "25%"]
    assert lines[2] == ["suspected,", "or", "leaking", "2", "2", "2", "1", "50%", "50%"]
    assert lines[3][-2:] == ["85%", "91%"]
    assert "right task: 2 of 4" in text
    assert "cases that accuse somebody innocent: 1 of 6" in text
    assert "healthy cases still suspected at their end: 1 of 2" in text
