"""Verdicts are read from events and from the answer of `inspect memory`, made up here."""

from __future__ import annotations

from demo.receiver import Event
from tests.zoo.said import Said, inspected, said_in, standing

ATTRIBUTES = {
    "celery.memory.leak.state": "leaking",
    "celery.memory.leak.kind": "python",
    "celery.memory.leak.where": "task",
    "celery.memory.leak.holder": "shop.feeds._seen",
    "celery.memory.leak.types": "+3 dict, +2 str",
    "celery.memory.leak.condition": "in runs that fail",
    "celery.memory.leak.rate": 10445.0,
    "celery.task.name": "shop.tasks.feed",
    "celery.memory.site.name": "shop/feeds.py:41",
}


def event(at_ns: int, name: str = "celery.memory.leak", **changed: object) -> Event:
    given = {f"celery.memory.leak.{key}": value for key, value in changed.items()}
    return Event(name, "WARN", "shop.tasks.feed leaks.", at_ns, {}, {**ATTRIBUTES, **given})


def test_an_event_says_who_leaks_what_where_and_who_holds_it() -> None:
    (said,) = said_in([event(5), event(1, "celery.memory.pressure")])
    assert said == Said(
        *(5, "leaking", "python", "task", "feed", "feeds.py:41", "shop.feeds._seen"),
        *("+3 dict, +2 str", "in runs that fail", 10445.0, "shop.tasks.feed leaks."),
    )


def test_what_is_not_known_is_empty() -> None:
    (said,) = said_in([Event("celery.memory.leak", "INFO", "", 5, {}, {})])
    assert said == Said(5, "", "", "", "")
    assert said.rate is None
    assert not said.stands


def test_events_are_in_the_order_of_their_times_however_they_came() -> None:
    told = said_in([event(9, state="ended"), event(3, state="suspected"), event(6)])
    assert [said.state for said in told] == ["suspected", "leaking", "ended"]


def test_what_stands_is_what_was_said_last_of_each_leak() -> None:
    told = said_in(
        [event(1, state="suspected"), event(2, kind="native"), event(3), event(4, where="idle")]
    )
    assert [(each.at_ns, each.kind, each.where) for each in standing(told)] == [
        (3, "python", "task"),
        (2, "native", "task"),
        (4, "python", "idle"),
    ]


def test_an_answer_says_it_in_its_own_form() -> None:
    verdict = {
        "state": "suspected",
        "kind": "threads",
        "where": "task",
        "task": "shop.tasks.ask",
        "rate": 1.0,
        "site": "shop/ask.py:7",
        "holder": "shop.ask._clients",
        "text": "shop.tasks.ask may leak 1 thread a run.",
    }
    (said,) = inspected([verdict], 8)
    assert (said.at_ns, said.state, said.kind, said.task) == (8, "suspected", "threads", "ask")
    assert (said.line, said.holder, said.rate) == ("ask.py:7", "shop.ask._clients", 1.0)
    assert said.words == "shop.tasks.ask may leak 1 thread a run."


def test_an_answer_that_knows_no_more_than_that_something_grows_is_read_as_well() -> None:
    unknown = dict.fromkeys(("task", "rate", "site", "holder"))
    grows = {"state": "leaking", "kind": "native", "where": "main", "text": "It grows."}
    (said,) = inspected([{**unknown, **grows}], 8)
    assert (said.task, said.line, said.holder, said.rate) == ("", "", "", None)
