"""What a window found, as records: the largest sites told, the rest added up."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

import billiard.pool
import celery
import celery.app.task
import celery.app.trace
import pytest

from otel_celery_memory.ipc.codec import encode, records_in
from otel_celery_memory.ipc.records import Record, Site, SitesWindow, WindowKind
from otel_celery_memory.probes.sites import LiveSites, SiteDelta, SiteFilter
from otel_celery_memory.worker.tracing.site_records import (
    SITES_PER_CAPTURE,
    SITES_PER_WINDOW,
    TaskCode,
    found_records,
    left_alive,
    window_records,
)
from otel_celery_memory.worker.tracing.traced_window import ALL, Found, InFlight, Left

APP, TASKS = "/srv/app/feeds.py", "/srv/app/tasks.py"


def deltas(count: int) -> list[SiteDelta]:
    """Line 1 has one byte, line 2 two, and so on."""
    return [SiteDelta(APP, line, line, 1, ()) for line in range(1, count + 1)]


def told(*args: Any, **kwargs: Any) -> tuple[SitesWindow, list[Site]]:
    window, *sites = window_records(7, WindowKind.COMPLETE, "app.task", *args, **kwargs)
    assert isinstance(window, SitesWindow)
    return window, [site for site in sites if isinstance(site, Site)]


def test_a_window_and_its_site_are_told_whole() -> None:
    delta = SiteDelta(APP, 41, 900, 3, ((APP, 41), (TASKS, 20)))
    window, sites = told({"task": [delta]}, runs=4, aborted=True, capture=9)
    assert window == SitesWindow(7, window.time_ns, 0, 4, 1, 9, 1, 0, 0, "app.task")
    assert sites == [
        Site(7, 0, 9, 900, 3, 41, 0, "app.task", APP, f"{TASKS}:20\n{APP}:41", "", "task")
    ]


def test_a_window_that_found_nothing_is_told_as_well() -> None:
    window, sites = told({})
    assert (window.sites, window.runs, window.aborted, window.capture, sites) == (0, 1, 0, 0, [])


@pytest.mark.parametrize(("capture", "bound"), [(0, SITES_PER_WINDOW), (3, SITES_PER_CAPTURE)])
def test_what_there_is_no_room_for_is_added_up(capture: int, bound: int) -> None:
    window, sites = told({"": deltas(bound + 3)}, capture=capture)
    assert (window.sites, window.other_bytes, window.other_blocks) == (bound, 6, 3)
    assert [site.line for site in sites] == [*range(bound + 3, 3, -1)]


def test_what_shrank_most_is_told_before_what_grew_a_little() -> None:
    found = [*deltas(SITES_PER_WINDOW), SiteDelta(APP, 999, -5_000, -5, ())]
    window, sites = told({"": found})
    assert (sites[0].line, sites[0].size_bytes, window.other_bytes) == (999, -5_000, 1)


def test_of_a_stack_that_does_not_fit_the_most_recent_calls_are_told() -> None:
    frames = tuple((f"/srv/{'x' * 100}/{depth}.py", depth) for depth in range(1, 26))
    _, (site,) = told({"": [SiteDelta(*frames[0], 1, 1, frames)]})
    (decoded,) = records_in(encode(site))
    assert isinstance(decoded, Site)
    lines = decoded.stack.split("\n")
    assert lines[-1] == f"{frames[0][0]}:1"
    assert lines == [f"{path}:{line}" for path, line in reversed(frames[: len(lines)])]
    assert 10 < len(lines) < 25


def test_left_alive_is_all_that_may_name_a_site() -> None:
    sites: LiveSites = {((APP, 1),): (10, 1), (("<unknown>", 0),): (99, 9), ((TASKS, 2),): (20, 2)}
    assert left_alive(sites, SiteFilter(exclude=["*/tasks.py"])) == [SiteDelta(APP, 1, 10, 1, ())]


def test_what_a_run_that_raised_left_is_not_yet_left_behind() -> None:
    found = Found({((APP, 5),): (100, 2)}, {"app.task": 1}, whole=True)
    window, site = records_of(found, with_exception=True)
    assert isinstance(window, SitesWindow)
    assert isinstance(site, Site)
    assert (window.kind, site.kind) == (WindowKind.PARTIAL, WindowKind.PARTIAL)


def records_of(found: Found, *tasks: tuple[str, Any], **how: Any) -> list[Record]:
    chosen = SiteFilter(called_from=("/celery/dispatch.py", 1, 2))
    code = TaskCode(chosen)
    for name, function in tasks:
        code.add(name, SimpleNamespace(run=function))
    how = {"shared": False, "with_exception": False, **how}
    return found_records(7, found, chosen, code, None, **how)[0]


def first_task() -> None:
    """Its lines are on a stack."""


def second_task() -> None:
    """So are its lines."""


def rows_of(
    sites: LiveSites, left_by: dict[str, Left], steady: LiveSites | None = None
) -> set[tuple[str, str, int, str, str, int]]:
    """Task, path, line, via, where and blocks of what has grown in two runs of each task."""
    found = Found(
        *(sites, {"a": 2, "b": 2}),
        grown=True,
        whole=True,
        left_by=left_by,
        steady=sites if steady is None else steady,
        each_ran_before=True,
    )
    records = records_of(found, ("a", first_task), ("b", second_task))
    return {
        (r.task, r.path, r.line, r.via, r.where, r.blocks) for r in records if isinstance(r, Site)
    }


FIRST = (__file__, first_task.__code__.co_firstlineno)
SECOND = (__file__, second_task.__code__.co_firstlineno)


def test_a_stack_with_a_task_s_function_says_whose_it_is_and_the_user_s_line_answers() -> None:
    library = (threading.__file__, 265)
    assert rows_of({(library, FIRST): (96, 2), ((APP, 5), SECOND): (64, 1)}, {}) == {
        ("a", *FIRST, f"{threading.__file__}:265", "task", 2),
        ("b", APP, 5, "", "task", 1),
    }


def test_receivers_and_code_outside_of_runs_are_told_as_what_they_are() -> None:
    receiver = ((APP, 5), ("/celery/dispatch.py", 50))
    thread = ((APP, 9), (threading.__file__, 1))
    assert rows_of({receiver: (96, 2), thread: (64, 1)}, {}) == {
        ("", APP, 5, "", "receiver", 2),
        ("", APP, 9, "", "idle", 1),
    }


def test_code_of_the_user_s_that_celery_calls_in_a_run_is_the_task_s() -> None:
    tracer, pool = (celery.app.trace.__file__, 600), (billiard.pool.__file__, 369)
    left = {"a": Left(1.0, 0.0), "b": Left(99.0, 0.0)}
    after_return = ((APP, 5), tracer, pool)
    celerys = ((celery.app.task.__file__, 142), tracer, pool)
    assert rows_of({after_return: (96, 2), celerys: (64, 1)}, left) == {
        ("b", APP, 5, "", "", 2),
        ("", celery.app.task.__file__, 142, "", "idle", 1),
    }


class _Base:
    def after_return(self) -> None:
        """Its lines are on a stack."""


class _Other:
    def after_return(self) -> None:
        """So are its lines."""


def test_what_celery_calls_for_a_task_is_the_task_s_and_of_several_the_one_s_that_ran() -> None:
    code = TaskCode(SiteFilter(called_from=("/celery/dispatch.py", 1, 2)))
    for name, task in (("a", _Base()), ("b", _Base()), ("c", _Other())):
        code.add(name, task)
    shared = ((__file__, _Base.after_return.__code__.co_firstlineno),)
    own = ((__file__, _Other.after_return.__code__.co_firstlineno),)
    assert code.task_of(own, ["a", "b"]) == "c"
    assert code.task_of(shared, ["a", "c"]) == "a"
    assert code.task_of(shared, ["a", "b"]) is None


def test_celery_s_own_handlers_are_of_no_task() -> None:
    app = celery.Celery()
    code = TaskCode(SiteFilter(called_from=("/celery/dispatch.py", 1, 2)))
    code.add("a", app.task(name="a")(first_task))
    line = celery.Task.after_return.__code__.co_firstlineno
    assert code.task_of(((celery.app.task.__file__, line),), ["a"]) is None
    assert code.task_of((FIRST,), ["a"]) == "a"


def test_of_a_library_that_no_task_called_what_grew_once_is_left_out() -> None:
    once: LiveSites = {((threading.__file__, 5), (billiard.pool.__file__, 369)): (96, 3)}
    assert rows_of(once, {}, steady={}) == set()
    assert rows_of(once, {}, steady={next(iter(once)): (64, 2)}) == {
        ("", threading.__file__, 5, "", "idle", 2)
    }


def test_what_a_thread_of_the_user_s_holds_at_one_look_is_left_out() -> None:
    thread: LiveSites = {((APP, 9), (threading.__file__, 1)): (60_000, 1)}
    assert rows_of(thread, {}, steady={}) == set()
    assert rows_of(thread, {}, steady=thread) == {("", APP, 9, "", "idle", 1)}


def test_no_task_has_left_behind_more_than_the_allocators_say() -> None:
    small, large = ((APP, 5), FIRST), ((APP, 6), FIRST)
    left = {"a": Left(2.0, 3_000.0)}
    assert rows_of({small: (800, 20), large: (30_000, 10)}, left) == {
        ("a", APP, 5, "", "task", 2),
        ("a", APP, 6, "", "task", 1),
    }


def test_a_buffer_that_was_moved_whole_has_grown_by_a_part_and_is_a_block() -> None:
    buffer = ((APP, 6), FIRST)
    moved: LiveSites = {buffer: (5_000_000, 1)}
    assert rows_of(moved, {"a": Left(0.0, 600_000.0)}) == {("a", APP, 6, "", "task", 1)}
    # What was replaced has left next to nothing behind.
    assert rows_of(moved, {"a": Left(0.0, 50_000.0)}) == {("a", APP, 6, "", "task", 0)}


@pytest.mark.parametrize(("may_be_deeper", "lines"), [(True, {5}), (False, {5, 99})])
def test_lines_of_libraries_are_left_to_a_deeper_window_where_one_may_come(
    may_be_deeper: bool, lines: set[int]
) -> None:
    # A stack so deep that its oldest frames are cut off: the user's line is not in it.
    library = ((json.__file__, 99), (json.__file__, 5))
    found = Found(
        {((APP, 5), FIRST): (800, 20), library: (90_000, 20)},
        {"a": 2},
        grown=True,
        whole=True,
        each_ran_before=True,
    )
    records = records_of(found, ("a", first_task), may_be_deeper=may_be_deeper)
    assert {record.line for record in records if isinstance(record, Site)} == lines


@pytest.mark.parametrize(
    ("raised", "size_bytes", "runs", "told"),
    [("a", 500, 2, 0), ("a", 5_000, 2, 1), ("a", 800, 4, 1), ("b", 500, 2, 1)],
)
def test_a_little_that_few_runs_left_of_which_one_raised_is_no_growth_of_their_task(
    raised: str, size_bytes: int, runs: int, told: int
) -> None:
    found = Found(
        {((APP, 5), FIRST): (size_bytes, 4)},
        {"a": runs, "b": 9},
        grown=True,
        whole=True,
        raised=frozenset({raised}),
    )
    records = records_of(found, ("a", first_task), ("b", second_task))
    assert sum(isinstance(each, Site) for each in records) == told


@pytest.mark.parametrize(("raised", "told"), [("a", 0), ("b", 1)])
def test_what_runs_that_raised_left_is_no_growth_where_nothing_could_be_collected(
    raised: str, told: int
) -> None:
    found = Found(
        {((APP, 5), FIRST): (900_000, 9)},
        {"a": 9, "b": 9},
        grown=True,
        whole=True,
        raised=frozenset({raised}),
        may_be_garbage=True,
    )
    records = records_of(found, ("a", first_task), ("b", second_task))
    assert sum(isinstance(each, Site) for each in records) == told


def test_what_is_on_no_task_s_stack_is_the_one_s_that_left_nearly_all_or_nobody_s() -> None:
    sites: LiveSites = {((APP, 5),): (96, 2)}
    some, much = Left(1.0, 0.0), Left(99.0, 0.0)
    assert [row[0] for row in rows_of(sites, {"a": some, "b": much})] == ["b"]
    assert [row[0] for row in rows_of(sites, {"a": much, "b": much})] == ["_shared"]


def test_what_only_runs_hold_that_have_not_ended_is_no_growth() -> None:
    leaks, waits = ((APP, 5), FIRST), ((APP, 9), SECOND)
    celerys = ((celery.app.task.__file__, 142), (billiard.pool.__file__, 369))
    sites: LiveSites = {leaks: (24_000, 24), waits: (900, 3), celerys: (300, 3)}
    found = Found(
        *(sites, {"a": 24, "b": 24}),
        grown=True,
        whole=True,
        alive={leaks: (30_000, 30), waits: (1_500, 5), celerys: (700, 7)},
        # Of seven now in flight, three were not at the look before, all of the second task.
        in_flight={"a": InFlight(2, 0), "b": InFlight(5, 3), ALL: InFlight(7, 3)},
        each_ran_before=True,
    )
    records = records_of(found, ("a", first_task), ("b", second_task), shared=True)
    grown = {(r.task, r.line): r.blocks for r in records if isinstance(r, Site) and r.blocks}
    assert grown == {("a", 5): 24}
