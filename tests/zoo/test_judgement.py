"""What is right of a verdict and what is wrong, from verdicts that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from demo.receiver import Event, Point
from otel_celery_memory import conventions as c
from tests.truth.case import ANY, Case, Shape
from tests.zoo.judgement import Judgement, Reached, holds, judge, last_ranking, runs_of
from tests.zoo.said import Said

SECOND_NS = 10**9
SUSPECTED = Said(10 * SECOND_NS, "suspected", "python", "task", "feed", "feed.py:7", "shop._seen")
LEAKING = replace(SUSPECTED, at_ns=60 * SECOND_NS, state="leaking")
ENDED = replace(SUSPECTED, at_ns=90 * SECOND_NS, state="ended")
OTHER = replace(SUSPECTED, task="mail")
NOBODY = replace(SUSPECTED, task="", kind="fragmentation")


def shape(leaks: str | None = "feed", **options: Any) -> Shape:
    given = {"holder": ("_seen",)} if leaks else {}
    case = Case("a case", leaks, {"feed": 10}, **{**given, **options})
    return Shape(case, "shop", ("feed.py:7",) if leaks and case.has_line else ())


def judged(said: list[Said], of: Shape | None = None, **options: Any) -> Judgement:
    return judge(of or shape(), said, 0, lambda at_ns: at_ns // SECOND_NS * 20, **options)


def test_the_right_task_kind_and_line_are_right_with_how_long_it_took() -> None:
    judgement = judged([SUSPECTED, LEAKING])
    assert judgement.right
    assert judgement.main == LEAKING
    assert judgement.suspected == Reached(10, 200)
    assert judgement.leaking == Reached(60, 1_200)
    assert judgement.said == "leaking"
    assert judgement.line_rank == 1


def test_a_leak_of_which_nothing_is_said_is_wrong() -> None:
    judgement = judged([])
    assert not judgement.right
    assert judgement.said == "nothing"
    assert judgement.main is None
    assert judgement.line_rank is None


def test_a_leak_that_is_said_to_have_ended_while_it_goes_on_is_wrong() -> None:
    assert not judged([SUSPECTED, ENDED]).right


def test_a_leak_that_is_mended_is_to_be_said_and_to_be_said_to_have_ended() -> None:
    mended = shape(ends=True)
    assert judged([SUSPECTED, ENDED], mended).right
    assert not judged([SUSPECTED], mended).right
    assert not judged([ENDED], mended).right
    assert not judged([], mended).right


def test_what_was_leaking_at_once_was_suspected_then() -> None:
    assert judged([LEAKING]).suspected == Reached(60, 1_200)


@pytest.mark.parametrize(
    "said", [replace(SUSPECTED, kind="native"), replace(SUSPECTED, where="receiver")]
)
def test_another_kind_or_another_place_of_growth_is_wrong(said: Said) -> None:
    judgement = judged([said])
    assert not judgement.kind_is_right
    assert not judgement.right


def test_any_of_several_kinds_may_be_right() -> None:
    several = shape(kinds=("native", "python"))
    assert judged([SUSPECTED], several).right


def test_the_holder_is_enough_where_the_line_is_another_one() -> None:
    judgement = judged([replace(SUSPECTED, line="lib.py:3")])
    assert not judgement.line_is_right
    assert judgement.holder_is_right
    assert judgement.right
    assert not judged([replace(SUSPECTED, line="lib.py:3", holder="shop._cache")]).right


def test_the_line_is_enough_where_the_holder_is_not_known() -> None:
    assert judged([replace(SUSPECTED, holder="")]).right


def test_neither_is_asked_for_where_no_line_can_be_told_and_nothing_holds_it() -> None:
    nothing = shape(has_line=False, holder=())
    assert judged([replace(SUSPECTED, line="", holder="")], nothing).right


def test_the_right_line_has_its_rank_among_the_sites_where_the_verdict_has_another() -> None:
    wrong = replace(SUSPECTED, line="lib.py:3")
    assert judged([wrong], ranking=("lib.py:3", "x.py:1", "feed.py:7")).line_rank == 3
    assert judged([wrong], ranking=("feed.py:7", "lib.py:3")).line_rank == 2
    assert judged([wrong], ranking=("lib.py:3",)).line_rank is None


def test_a_condition_is_to_be_said_where_there_is_one_and_nowhere_else() -> None:
    failing = shape(condition="in runs that fail")
    said = replace(SUSPECTED, condition="in runs that fail")
    assert judged([said], failing).right
    assert not judged([SUSPECTED], failing).right
    assert not judged([said]).right


def test_somebody_else_who_is_named_is_accused_though_it_be_in_passing() -> None:
    judgement = judged([OTHER, LEAKING, replace(OTHER, state="ended", at_ns=70 * SECOND_NS)])
    assert [said.task for said in judgement.accused] == ["mail"]
    assert not judgement.right


def test_a_second_task_that_leaks_is_not_accused_and_is_not_the_answer() -> None:
    judgement = judged([OTHER], shape(also=("mail",)))
    assert judgement.accused == ()
    assert [said.task for said in judgement.second] == ["mail"]
    assert judgement.main is None
    assert not judgement.right


def test_a_second_verdict_on_the_same_task_is_told_beside_the_surest_one() -> None:
    threads = replace(LEAKING, kind="threads")
    judgement = judged([SUSPECTED, threads])
    assert judgement.main == threads
    assert judgement.others == (SUSPECTED,)


def test_what_no_task_leaks_is_right_by_where_it_is() -> None:
    receiver = shape(ANY, where=("receiver",))
    assert judged([replace(SUSPECTED, where="receiver", task="")], receiver).right
    assert judged([replace(SUSPECTED, where="receiver", task="mail")], receiver).right
    judgement = judged([SUSPECTED], receiver)
    assert judgement.main is None
    assert judgement.accused == (SUSPECTED,)


def test_of_a_healthy_case_nothing_is_said() -> None:
    assert judged([], shape(None)).right
    assert not judged([OTHER], shape(None)).right


def test_what_fills_up_may_be_suspected_and_must_not_be_leaking() -> None:
    filling = shape(None, fills=("feed",))
    suspected = judged([SUSPECTED], filling)
    assert suspected.right
    assert suspected.is_still_suspected
    assert not judged([SUSPECTED, ENDED], filling).is_still_suspected
    leaking = judged([SUSPECTED, LEAKING], filling)
    assert not leaking.right
    assert leaking.said == "leaking"
    assert leaking.accused == (LEAKING,)


def test_what_fills_up_beside_a_leak_may_be_suspected_too() -> None:
    beside = shape(fills=("mail",))
    assert judged([LEAKING, OTHER], beside).right
    assert not judged([LEAKING, replace(OTHER, state="leaking")], beside).right


def test_growth_of_no_task_accuses_nobody_and_is_an_alarm_where_nothing_leaks() -> None:
    judgement = judged([NOBODY], shape(None))
    assert judgement.accused == ()
    assert judgement.right
    assert judgement.is_still_suspected
    assert not judged([replace(NOBODY, state="leaking")], shape(None)).right
    assert judged([NOBODY, LEAKING]).right


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        ("shop.feeds._seen", True),
        ("_seen", True),
        ("shop._seen[...]", True),
        ("shop.was_seen", False),
        ("shop._seen_before", False),
        ("", False),
    ],
)
def test_a_holder_is_found_as_a_whole_name(chain: str, found: bool) -> None:
    assert holds(chain, ("_seen",)) is found


def test_the_last_ranking_is_of_the_newest_events_in_the_order_of_their_ranks() -> None:
    def site(at_ns: int, rank: int, name: str) -> Event:
        attributes = {c.SITE_RANK: rank, c.SITE_NAME: name}
        return Event(c.ALLOCATION_SITE.name, "INFO", "", at_ns, {}, attributes)

    events = [site(1, 1, "a/old.py:1"), site(2, 2, "b/two.py:2"), site(2, 1, "a/one.py:1")]
    assert last_ranking(events) == ("one.py:1", "two.py:2")
    assert last_ranking([]) == ()


def measured(task: str, at_s: int, runs: int, state: str = "SUCCESS") -> Point:
    attributes = {c.TASK_NAME: f"shop.{task}", c.TASK_STATE: state}
    return Point(c.MEASURED.name, "{task}", {}, attributes, 0, at_s * SECOND_NS, runs)


def test_runs_are_counted_over_all_states_and_between_two_exports_spread_evenly() -> None:
    points = [
        measured("feed", 10, 100),
        measured("feed", 20, 300),
        measured("feed", 20, 40, "FAILURE"),
        measured("mail", 20, 7),
    ]
    feed = runs_of(points, "feed")
    assert [feed(at_s * SECOND_NS) for at_s in (0, 5, 10, 15, 20, 30)] == [
        *(0, 50 + 10, 100 + 20, 200 + 30, 340, 340),
    ]
    assert runs_of(points, ANY)(20 * SECOND_NS) == 347
