"""Which verdicts stand, and which of them are news."""

from __future__ import annotations

from dataclasses import replace

from otel_celery_memory.leaks.standing import StandingVerdicts
from otel_celery_memory.leaks.verdict import Holder, Kind, Place, State, Verdict, Where

VERDICT = Verdict(
    state=State.SUSPECTED,
    kind=Kind.PYTHON,
    where=Where.TASK,
    task="t",
    rate=None,
    rate_per_s=10.0,
    runs=1,
    processes=1,
    since_s=0.0,
    now_s=0.0,
    grown=1.0,
)
PLACE = Place("app.py:4", "/app.py", 4, None, "", 1.0)


def test_a_verdict_is_news_once() -> None:
    standing = StandingVerdicts()
    assert standing.update([VERDICT], 0) == [VERDICT]
    assert standing.update([replace(VERDICT, runs=2)], 5) == []
    assert standing.all == (replace(VERDICT, runs=2),)


def test_another_state_is_news_at_once() -> None:
    standing = StandingVerdicts()
    standing.update([VERDICT], 0)
    leaking = replace(VERDICT, state=State.LEAKING)
    assert standing.update([leaking], 1) == [leaking]


def test_a_first_place_or_holder_is_news_at_once_and_another_one_after_a_while() -> None:
    standing = StandingVerdicts()
    standing.update([VERDICT], 0)
    placed = replace(VERDICT, place=PLACE)
    assert standing.update([placed], 1) == [placed]
    held = replace(placed, holder=Holder("app.cache"))
    assert standing.update([held], 2) == [held]
    elsewhere = replace(held, place=replace(PLACE, name="app.py:9"), holder=Holder("app.other"))
    assert standing.update([elsewhere], 3) == []
    assert standing.update([elsewhere], 33) == [elsewhere]


def test_a_place_and_a_holder_stay_until_others_are_found() -> None:
    standing = StandingVerdicts()
    found = replace(VERDICT, place=PLACE, holder=Holder("app.cache"))
    standing.update([found], 0)
    assert standing.update([replace(VERDICT, runs=9)], 1_000) == []
    assert standing.all == (replace(found, runs=9),)


def test_a_leak_that_begins_anew_within_minutes_is_told_with_what_was_known_of_it() -> None:
    def begun_anew(after_s: float) -> list[Verdict]:
        standing = StandingVerdicts()
        standing.update([replace(VERDICT, place=PLACE)], 0)
        for step in range(12):
            standing.update([], step)
        return standing.update([VERDICT], 11 + after_s)

    assert begun_anew(600) == [replace(VERDICT, place=PLACE)]
    assert begun_anew(601) == [VERDICT]


def test_what_is_not_drawn_for_a_minute_has_ended_and_is_shown_for_a_day() -> None:
    standing = StandingVerdicts()
    standing.update([VERDICT], 0)
    for step in range(11):
        assert standing.update([], 5 + step) == []
    (ended,) = standing.update([], 60)
    assert (ended.state, ended.now_s) == (State.ENDED, 60)
    assert standing.update([], 61) == []
    assert standing.all == (ended,)
    standing.update([], 60 + 24 * 3_600 + 1)
    assert not standing.all


def test_a_leak_that_comes_again_is_news() -> None:
    standing = StandingVerdicts()
    standing.update([VERDICT], 0)
    for step in range(12):
        standing.update([], step)
    assert standing.update([VERDICT], 100) == [VERDICT]


def test_a_gap_of_some_steps_ends_nothing() -> None:
    standing = StandingVerdicts()
    for step in range(50):
        assert standing.update([VERDICT] if step % 10 == 0 else [], step) == [VERDICT] * (not step)


def test_that_it_is_native_becomes_known_later_and_is_no_second_leak() -> None:
    standing = StandingVerdicts()
    standing.update([VERDICT], 0)
    standing.update([replace(VERDICT, kind=Kind.NATIVE)], 5)
    assert [verdict.kind for verdict in standing.all] == [Kind.NATIVE]


def test_leaking_comes_before_suspected_before_ended_and_the_fastest_first() -> None:
    standing = StandingVerdicts()
    ended, slow, fast, sure = (
        replace(VERDICT, task=name, rate_per_s=rate, state=state)
        for name, rate, state in (
            ("ended", 99.0, State.SUSPECTED),
            ("slow", 1.0, State.SUSPECTED),
            ("fast", 2.0, State.SUSPECTED),
            ("sure", 0.5, State.LEAKING),
        )
    )
    standing.update([ended], 0)
    for step in range(12):
        standing.update([slow, fast, sure], step)
    assert [verdict.task for verdict in standing.all] == ["sure", "fast", "slow", "ended"]


def test_a_verdict_that_names_somebody_comes_before_one_that_names_nobody() -> None:
    standing = StandingVerdicts()
    nobody = replace(VERDICT, kind=Kind.COPY_ON_WRITE, task="", rate_per_s=1_000.0)
    standing.update([nobody, VERDICT], 0)
    assert standing.all == (VERDICT, nobody)


def test_what_is_kept_is_bounded() -> None:
    standing = StandingVerdicts()
    standing.update([replace(VERDICT, task=str(number)) for number in range(1_000)], 0)
    assert len(standing.all) == 50
