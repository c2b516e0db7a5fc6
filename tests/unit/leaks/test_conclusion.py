"""Who leaks, of what kind, and where, by the evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_celery_memory.leaks.conclusion import (
    Evidence,
    FoundSite,
    Growing,
    TaskFacts,
    conclude,
)
from otel_celery_memory.leaks.resource import Resource
from otel_celery_memory.leaks.verdict import Holder, Interval, Kind, Place, State, Verdict, Where

KIB = 1024
HEAP = Growing(
    Resource.HEAP,
    State.LEAKING,
    since_s=100,
    grown=1_000 * KIB,
    rate_per_s=Interval(10 * KIB, 9 * KIB, 11 * KIB),
    per_run=Interval(5 * KIB, 4 * KIB, 6 * KIB),
    runs=200,
    processes=2,
)


def keeps(middle: float) -> Interval:
    """What a run keeps, give or take a tenth."""
    return Interval(middle, middle * 0.9, middle * 1.1)


def site(name: str, bytes_per_run: float, where: str = "task") -> FoundSite:
    """A line that leaves so much behind."""
    return FoundSite(Place(name, f"/app/{name}", 4, "f", "", 1.0), where, bytes_per_run)


LEAKING = TaskFacts("leaks", 100, keeps(10 * KIB), 3.0, sites=(site("app.py:4", 9.5 * KIB),))
HEALTHY = TaskFacts("healthy", 900, None)


def concluded(*tasks: TaskFacts, growing: Growing = HEAP, **more: object) -> tuple[Verdict, ...]:
    """The verdicts."""
    return drawn(Evidence(1_000, (growing,), tasks, **more))  # type: ignore[arg-type]


def drawn(evidence: Evidence) -> tuple[Verdict, ...]:
    """The verdicts alone."""
    return tuple(verdict for _, verdict in conclude(evidence))


def test_the_task_whose_runs_keep_what_the_heaps_grow_by_leaks() -> None:
    (verdict,) = concluded(LEAKING, HEALTHY)
    assert (verdict.task, verdict.where, verdict.kind) == ("leaks", Where.TASK, Kind.PYTHON)
    assert verdict.rate == LEAKING.retained
    assert verdict.explained == 1.0
    assert verdict.place is not None
    assert (verdict.place.name, verdict.place.share) == ("app.py:4", 0.95)


def test_a_library_s_line_that_explains_next_to_nothing_is_not_the_place() -> None:
    small = replace(site("abc.py:123", 0.5 * KIB), of_library=True)
    large = replace(site("json.py:9", 5 * KIB), of_library=True)
    own = site("app.py:4", 0.1 * KIB)

    def place(*sites: FoundSite) -> str:
        (verdict,) = concluded(replace(LEAKING, sites=sites))
        return "" if verdict.place is None else verdict.place.name

    assert (place(small), place(small, own), place(small, large)) == ("", "app.py:4", "json.py:9")


def test_two_leaks_share_the_growth() -> None:
    small = replace(LEAKING, name="small", runs=100, retained=keeps(1.2 * KIB))
    large, less = concluded(small, replace(LEAKING, retained=keeps(9 * KIB)), HEALTHY)
    assert (large.task, less.task) == ("leaks", "small")
    assert large.explained == pytest.approx(0.88, abs=0.01)
    assert less.explained == pytest.approx(0.12, abs=0.01)


def test_who_does_a_small_part_of_it_is_not_named() -> None:
    little = replace(HEALTHY, retained=keeps(100))
    assert [verdict.task for verdict in concluded(LEAKING, little)] == ["leaks"]


def test_nothing_is_said_while_nothing_grows() -> None:
    assert drawn(Evidence(1_000, (), (LEAKING,))) == ()


def test_growth_that_no_task_explains_is_nobodys() -> None:
    (verdict,) = concluded(HEALTHY)
    assert (verdict.task, verdict.where, verdict.explained) == ("", Where.TASK, None)


def test_growth_is_said_to_be_nobodys_after_some_minutes_alone() -> None:
    assert concluded(HEALTHY, growing=replace(HEAP, unexplained_s=100)) == ()


def test_where_runs_overlap_the_lines_say_whose_growth_it_is_and_no_more_than_suspect() -> None:
    line = site("app.py:4", 9 * KIB)
    overlaps = TaskFacts("overlaps", 100, None, sites=(line,), overlaps=True)
    little = TaskFacts("little", 100, None, sites=(site("app.py:9", 100),), overlaps=True)
    early = replace(HEAP, unexplained_s=0)
    (verdict,) = concluded(overlaps, little)
    assert (verdict.task, verdict.state) == ("overlaps", State.SUSPECTED)
    assert verdict.explained == pytest.approx(0.9)
    assert verdict.place is not None and verdict.place.name == "app.py:4"
    # Where runs are sampled, it is these that speak.
    assert concluded(replace(overlaps, overlaps=False), growing=early) == ()
    assert concluded(overlaps, LEAKING)[0].task == "leaks"


def test_growth_beside_tasks_is_told_with_its_line() -> None:
    (verdict,) = concluded(HEALTHY, sites=(site("thread.py:9", 0, "idle"),))
    assert verdict.where == Where.IDLE
    assert verdict.place is not None and verdict.place.name == "thread.py:9"


def test_a_task_that_is_not_sure_yet_is_suspected_only() -> None:
    (verdict,) = concluded(replace(LEAKING, is_surely=False))
    assert verdict.state == State.SUSPECTED
    assert verdict.reasons == ("it is not sure yet that it is this task",)


def test_a_receiver_is_named_instead_of_all_the_tasks_that_it_runs_with() -> None:
    first = TaskFacts("first", 100, keeps(5 * KIB), 2.0)
    second = TaskFacts("second", 100, keeps(5.2 * KIB), 2.0)
    (verdict,) = concluded(first, second, sites=(site("hooks.py:7", 5 * KIB, "receiver"),))
    assert (verdict.task, verdict.where) == ("", Where.RECEIVER)
    assert verdict.place is not None and verdict.place.name == "hooks.py:7"
    assert verdict.rate is not None and verdict.rate.middle == 5 * KIB


def test_a_task_that_leaks_beside_a_leaking_receiver_is_named_too() -> None:
    other = TaskFacts("other", 100, keeps(1 * KIB), 2.0)
    found = concluded(LEAKING, other, sites=(site("hooks.py:7", 1 * KIB, "receiver"),))
    assert [(verdict.where, verdict.task) for verdict in found] == [
        (Where.RECEIVER, ""),
        (Where.TASK, "leaks"),
    ]


def test_memory_that_no_line_allocates_is_native_once_runs_were_traced() -> None:
    unseen = replace(LEAKING, blocks_per_run=0.0, sites=())
    assert concluded(unseen)[0].kind == Kind.PYTHON
    assert concluded(replace(unseen, traced_runs=20))[0].kind == Kind.NATIVE
    held = replace(unseen, traced_runs=20, holder=Holder("app.cache", (("Image", 1.0),)))
    assert concluded(held)[0].kind == Kind.PYTHON


def test_cycles_that_nobody_may_collect_are_garbage() -> None:
    assert concluded(replace(LEAKING, collects=False))[0].kind == Kind.GARBAGE
    held = replace(LEAKING, collects=False, holder=Holder("app.cache"))
    assert concluded(held)[0].kind == Kind.PYTHON


def test_a_condition_is_told_with_the_task() -> None:
    (verdict,) = concluded(replace(LEAKING, condition="in runs that fail"))
    assert verdict.condition == "in runs that fail"


FILES = replace(HEAP, resource=Resource.OPEN_FILES, grown=100)


def test_descriptors_are_counted_by_task() -> None:
    opens = replace(LEAKING, things=((Resource.OPEN_FILES, 1.0),), retained=None)
    (verdict,) = concluded(opens, HEALTHY, growing=FILES)
    assert (verdict.task, verdict.kind) == ("leaks", Kind.FILE_DESCRIPTORS)
    assert verdict.rate is not None and verdict.rate.middle == 1.0


def test_descriptors_of_which_no_task_is_known_yet_are_nobodys_for_minutes() -> None:
    """Samples of who keeps them come some seconds after the growth is seen."""
    assert concluded(HEALTHY, growing=replace(FILES, unexplained_s=170)) == ()
    (verdict,) = concluded(HEALTHY, growing=replace(FILES, unexplained_s=190))
    assert (verdict.where, verdict.task) == (Where.IDLE, "")


def test_descriptors_that_each_task_keeps_are_a_receivers() -> None:
    first, second = (
        replace(HEALTHY, name=name, things=((Resource.OPEN_FILES, count),))
        for name, count in (("first", 1.0), ("second", 0.8))
    )
    (verdict,) = concluded(
        first, second, growing=FILES, sites=(site("hooks.py:7", 1 * KIB, "receiver"),)
    )
    assert (verdict.where, verdict.task, verdict.kind) == (
        *(Where.RECEIVER, ""),
        Kind.FILE_DESCRIPTORS,
    )
    assert verdict.rate is not None and verdict.rate.middle == pytest.approx(0.9)
    assert verdict.place is not None and verdict.place.name == "hooks.py:7"


def test_the_memory_of_a_thread_that_stays_is_no_second_leak() -> None:
    threads = replace(FILES, resource=Resource.THREADS)
    starts = replace(LEAKING, things=((Resource.THREADS, 1.0),))
    found = drawn(Evidence(1_000, (HEAP, threads), (starts, HEALTHY)))
    assert [verdict.kind for verdict in found] == [Kind.THREADS]


def test_messages_explain_the_growth_of_the_main_process() -> None:
    main = replace(HEAP, resource=Resource.MAIN)
    messages = replace(HEAP, resource=Resource.MESSAGES, grown=4_000)
    found = drawn(Evidence(1_000, (main, messages), (HEALTHY,)))
    assert [(verdict.kind, verdict.where) for verdict in found] == [(Kind.MESSAGES, Where.MAIN)]
    assert drawn(Evidence(1_000, (main,)))[0].kind == Kind.PYTHON


def test_processes_left_behind_are_told_by_task() -> None:
    left = replace(HEAP, resource=Resource.DESCENDANTS)
    found = drawn(
        Evidence(1_000, (left,), (HEALTHY,), left_by=(("starts", 900.0), ("seldom", 10.0)))
    )
    assert [(verdict.task, verdict.kind, verdict.where) for verdict in found] == [
        ("starts", Kind.PROCESSES, Where.DESCENDANT)
    ]


@pytest.mark.parametrize(
    ("resource", "kind"),
    [
        (Resource.MALLOC_FREE, Kind.FRAGMENTATION),
        (Resource.COPIED, Kind.COPY_ON_WRITE),
        (Resource.OTHER, Kind.MAPPING),
    ],
)
def test_what_no_task_is_known_to_do_has_its_kind(resource: Resource, kind: Kind) -> None:
    (verdict,) = concluded(HEALTHY, growing=replace(HEAP, resource=resource))
    assert (verdict.kind, verdict.task) == (kind, "")


def test_a_mapping_is_told_with_the_task_that_keeps_it() -> None:
    maps = replace(HEALTHY, name="maps", other=keeps(1_000))
    (verdict,) = concluded(maps, growing=replace(HEAP, resource=Resource.OTHER))
    assert (verdict.task, verdict.kind) == ("maps", Kind.MAPPING)
