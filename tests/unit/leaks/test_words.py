"""What a person reads of a verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from otel_celery_memory.leaks.verdict import Forecast, Holder, Interval, Kind, State, Where
from otel_celery_memory.leaks.words import amount, duration, headline, sentences
from tests.unit.leaks.examples import VERDICT


def at(time_s: float) -> str:
    """A clock that needs no timezone."""
    return f"{time_s:.0f} s"


def test_a_verdict_says_who_what_where_and_how_long() -> None:
    assert sentences(VERDICT, at) == (
        "shop.tasks.import_feed leaks 10.2 KiB a run (9.8 KiB to 10.6 KiB, 4,100 runs in 6 "
        "processes, since 0 s). "
        "Python objects: +3 dict, +2 str a run, held by shop.feeds._seen. "
        "Allocated at shop/feeds.py:41 in remember (97% of it). "
        "At this pace process 0 reaches its limit of 2.0 GiB (cgroup) in about 7 h (6 h to 9 h); "
        "max_tasks_per_child of at most 4,000 keeps it under until it is fixed. "
        "Not explained by it: 3% of the growth. "
        "Give what holds them a bound, or let go of them when the run ends."
    )


def test_of_a_cache_that_has_a_bound_it_is_said_that_it_fills_up() -> None:
    chain = "shop.prices.of → lru_cache(maxsize=4096) of shop.prices.of"
    bounded = replace(VERDICT, holder=Holder(chain))
    assert "a cache of 4,096 entries in each process" in sentences(bounded, at)
    assert "Give what holds them a bound" not in sentences(bounded, at)
    without = replace(VERDICT, holder=Holder(chain.replace("4096", "None")))
    assert "Give what holds them a bound" in sentences(without, at)


def test_a_suspicion_says_that_it_may_be_one_and_why() -> None:
    text = sentences(
        replace(VERDICT, state=State.SUSPECTED, reasons=("a cache of 64 MiB may still fill up",)),
        at,
    )
    assert text.startswith("shop.tasks.import_feed may leak 10.2 KiB a run (")
    assert "Suspected: a cache of 64 MiB may still fill up." in text


def test_a_leak_that_has_ended_asks_for_nothing() -> None:
    text = sentences(replace(VERDICT, state=State.ENDED), at)
    assert text.startswith("shop.tasks.import_feed kept 10.2 KiB a run (")
    assert "since 0 s, until 3600 s)" in text
    assert "At this pace" not in text
    assert "max_tasks_per_child" not in text
    assert "Give what holds them" not in text


def test_a_range_from_a_number_to_itself_is_not_told() -> None:
    rate = Interval(10_210.0, 10_200.0, 10_220.0)
    text = headline(replace(VERDICT, rate=rate), at)
    assert text == (
        "shop.tasks.import_feed leaks 10.0 KiB a run (4,100 runs in 6 processes, since 0 s)."
    )


def test_what_happens_in_failing_runs_alone_is_said() -> None:
    text = headline(replace(VERDICT, condition="in runs that fail"), at)
    assert text.startswith("shop.tasks.import_feed leaks 10.2 KiB a run in runs that fail (")


@pytest.mark.parametrize(
    ("kind", "where", "task", "begins"),
    [
        (Kind.FILE_DESCRIPTORS, Where.TASK, "t", "t leaks 1 open file a run (1 to 2, "),
        (Kind.THREADS, Where.RECEIVER, "", "A receiver of Celery's signals leaks 1 thread a run"),
        (Kind.PYTHON, Where.IDLE, "", "Something beside the tasks leaks 2.0 KiB a second ("),
        (Kind.NATIVE, Where.TASK, "", "Some task, it is not known which, leaks 1 B a run ("),
        (
            Kind.FRAGMENTATION,
            Where.IDLE,
            "",
            "The worker's processes fragment memory, so that malloc keeps more free: 2.0 KiB a "
            "second (",
        ),
        (
            Kind.FRAGMENTATION,
            Where.TASK,
            "t",
            "Runs of t fragment memory, so that malloc keeps more free: 1 B a run (1 B to 2 B, ",
        ),
        (
            Kind.COPY_ON_WRITE,
            Where.TASK,
            "",
            "The worker's processes copy memory that was shared before the fork: 1 B a run (",
        ),
        (
            Kind.COPY_ON_WRITE,
            Where.TASK,
            "t",
            "Runs of t copy memory that was shared before the fork: 1 B a run (",
        ),
        (
            Kind.GARBAGE,
            Where.TASK,
            "t",
            "Runs of t leave garbage that waits for the collector: 1 B a run (",
        ),
        (Kind.PYTHON, Where.RECEIVER, "t", "A receiver that runs with t leaks 1 B a run ("),
        (Kind.PYTHON, Where.MAIN, "", "The main process leaks 2.0 KiB a second ("),
        (
            Kind.MESSAGES,
            Where.MAIN,
            "",
            "The main process takes more messages than it gives to its children: 2,048 messages "
            "a second (",
        ),
        (
            Kind.PROCESSES,
            Where.DESCENDANT,
            "t",
            "Runs of t leave processes behind, which grow by 2.0 KiB a second (",
        ),
        (Kind.PYTHON, Where.DESCENDANT, "", "Processes of tasks leak 2.0 KiB a second ("),
    ],
)
def test_each_kind_has_its_unit(kind: Kind, where: Where, task: str, begins: str) -> None:
    verdict = replace(
        VERDICT, kind=kind, where=where, task=task, rate=Interval(1, 1, 2), rate_per_s=2_048
    )
    assert headline(verdict, at).startswith(begins)


@pytest.mark.parametrize(
    ("kind", "state", "begins"),
    [
        (Kind.COPY_ON_WRITE, State.SUSPECTED, "Runs of t may copy memory that"),
        (Kind.COPY_ON_WRITE, State.ENDED, "Runs of t copied memory that"),
        (Kind.FRAGMENTATION, State.SUSPECTED, "Runs of t may fragment memory, so"),
        (Kind.FRAGMENTATION, State.ENDED, "Runs of t fragmented memory, so"),
        (Kind.GARBAGE, State.ENDED, "Runs of t left garbage that"),
        (Kind.NATIVE, State.SUSPECTED, "t may leak 10.2 KiB"),
    ],
)
def test_each_kind_is_said_in_each_state(kind: Kind, state: State, begins: str) -> None:
    assert headline(replace(VERDICT, kind=kind, state=state, task="t"), at).startswith(begins)


@pytest.mark.parametrize("kind", [Kind.FRAGMENTATION, Kind.COPY_ON_WRITE])
@pytest.mark.parametrize("where", Where)
@pytest.mark.parametrize("state", State)
def test_what_is_no_leak_is_not_called_one(kind: Kind, where: Where, state: State) -> None:
    for task in ("t", ""):
        assert "leak" not in headline(
            replace(VERDICT, kind=kind, where=where, state=state, task=task), at
        )


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("where", Where)
@pytest.mark.parametrize("state", State)
def test_every_verdict_is_sentences_on_one_line(kind: Kind, where: Where, state: State) -> None:
    for task in ("shop.tasks.load", ""):
        for holder in (None, VERDICT.holder):
            made = replace(
                VERDICT, kind=kind, where=where, state=state, task=task, holder=holder, rate=None
            )
            text = sentences(made, at)
            assert "  " not in text
            assert "\n" not in text
            assert ": ." not in text
            assert text.endswith(".")
            assert text[0].isupper() or text.startswith("shop.tasks.load ")


def test_a_holder_of_a_kind_that_needs_no_name_is_a_sentence() -> None:
    text = sentences(replace(VERDICT, kind=Kind.THREADS), at)
    assert " +3 dict, +2 str a run, held by shop.feeds._seen. " in text
    text = sentences(replace(VERDICT, kind=Kind.THREADS, holder=Holder("shop.POOL")), at)
    assert " Held by shop.POOL. " in text


def test_what_was_seen_in_no_run_is_not_counted_in_runs() -> None:
    text = headline(replace(VERDICT, where=Where.MAIN, task="", runs=0, processes=1), at)
    assert text.endswith(" (1 process, since 0 s).")


def test_what_began_days_ago_is_dated_by_days() -> None:
    text = headline(replace(VERDICT, now_s=3 * 86_400), at)
    assert text.endswith("6 processes, since 0 s 3 days ago).")


def test_a_limit_that_is_far_is_not_dated() -> None:
    forecast = Forecast("main", "host", 1 << 40, Interval(40 * 86_400, 30 * 86_400, math.inf))
    text = sentences(replace(VERDICT, forecast=forecast), at)
    assert "At this pace the worker does not reach its limit of 1,024.0 GiB (host)" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (90, "2 min"), (7 * 3_600, "7 h"), (30 * 3_600, "30 h"), (260_000, "3 days")],
)
def test_a_duration_is_of_two_figures(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 threads"),
        (0.0123, "0.012 threads"),
        (0.5, "0.5 threads"),
        (1, "1 thread"),
        (2.04, "2 threads"),
        (1_234.5, "1,234.5 threads"),
        (math.inf, "unbounded threads"),
    ],
)
def test_a_part_of_a_thread_is_no_whole_one(count: float, text: str) -> None:
    assert amount(count, Kind.THREADS) == text


def test_numbers_that_are_none_are_said() -> None:
    strange = Forecast("0", "host", 1, Interval(math.nan, 0, math.nan))
    wild = replace(
        VERDICT, rate=Interval(math.nan, 0, math.inf), rate_per_s=math.inf, forecast=strange
    )
    assert "leaks unbounded a run (0 B to unbounded, " in sentences(wild, at)
    assert "unbounded a second" in sentences(replace(wild, where=Where.MAIN), at)
