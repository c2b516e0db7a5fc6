"""Who owns a site: the user's line before a library's, and never whoever looks at it."""

from __future__ import annotations

import json
import sysconfig

import pytest

from otel_celery_memory.probes.sites import (
    Frames,
    LiveSites,
    Owner,
    SiteFilter,
    growing_throughout,
    growth,
    still_alive,
)

JSON = json.__file__
LIB = sysconfig.get_path("purelib") + "/lib/core.py"
APP, TASKS = "/srv/app/feeds.py", "/srv/app/tasks.py"
SEND = ("/venv/celery/dispatch.py", 270, 310)


@pytest.mark.parametrize("library", [JSON, LIB, "<frozen codecs>"])
def test_a_library_s_line_that_the_user_called_belongs_to_the_user_s_line(library: str) -> None:
    frames = ((library, 10), (library, 20), (APP, 41), (TASKS, 7))
    assert SiteFilter().owner(frames) == Owner(APP, 41, f"{library}:10")


def test_a_library_s_line_that_nobody_else_called_belongs_to_it() -> None:
    assert SiteFilter().owner(((LIB, 10), (JSON, 20))) == Owner(LIB, 10)


def test_with_one_frame_a_library_s_line_names_itself() -> None:
    assert SiteFilter().owner(((JSON, 10),)) == Owner(JSON, 10)


def test_of_the_user_s_lines_the_most_recent_owns_the_site() -> None:
    assert SiteFilter().owner(((APP, 41), (LIB, 3), (TASKS, 7))) == Owner(APP, 41)


def test_a_user_s_line_that_is_left_out_gives_way_to_the_one_that_called_it() -> None:
    assert SiteFilter(exclude=["*/feeds.py"]).owner(((APP, 41), (TASKS, 7))) == Owner(TASKS, 7)


def test_where_a_library_is_asked_for_it_owns_what_only_it_may() -> None:
    assert SiteFilter(include=[LIB]).owner(((LIB, 3), (APP, 41))) == Owner(LIB, 3)


@pytest.mark.parametrize(
    ("line", "told"), [(269, True), (270, False), (300, False), (310, False), (311, True)]
)
def test_what_calls_us_when_we_look_is_no_site(line: int, told: bool) -> None:
    chosen = SiteFilter(called_from=SEND)
    assert (chosen.owner(((SEND[0], line), (APP, 41))) is not None) is told


def test_what_was_called_from_there_is_the_task_s() -> None:
    assert SiteFilter(called_from=SEND).owner(((APP, 41), (SEND[0], 300))) == Owner(APP, 41)


A: Frames = ((APP, 1),)
B: Frames = ((APP, 2),)
C: Frames = ((APP, 3),)


def test_alive_at_both_looks_is_of_each_site_the_smaller_count() -> None:
    first: LiveSites = {A: (300, 3), B: (100, 1), C: (50, 5)}
    later: LiveSites = {A: (100, 1), B: (900, 9), C: (50, 5), ((APP, 4),): (7, 7)}
    assert still_alive(first, later) == {A: (100, 1), B: (100, 1), C: (50, 5)}


def test_what_is_gone_at_the_second_look_is_no_site() -> None:
    assert still_alive({A: (300, 3)}, {}) == {}
    assert still_alive({A: (300, 3)}, {A: (0, 0)}) == {}
    assert still_alive({}, {A: (300, 3)}) == {}


def test_where_the_user_s_tasks_are_installed_their_package_is_the_user_s() -> None:
    chosen = SiteFilter()
    assert chosen.owner(((JSON, 10), (LIB, 3), (APP, 41))) == Owner(APP, 41, f"{JSON}:10")
    chosen.own_package(LIB)
    assert chosen.owner(((JSON, 10), (LIB, 3), (APP, 41))) == Owner(LIB, 3, f"{JSON}:10")


def test_what_we_allocate_through_a_library_is_ours() -> None:
    ours = SiteFilter.__init__.__code__.co_filename
    assert SiteFilter().owner(((JSON, 10), (ours, 3), (APP, 41))) is None
    assert SiteFilter().owner(((JSON, 10), (APP, 41), (ours, 3))) == Owner(APP, 41, f"{JSON}:10")


def test_growth_is_what_is_alive_beyond_the_earlier_look_and_what_is_the_same_is_left_out() -> None:
    assert growth({A: (300, 3), B: (100, 1)}, {A: (500, 5), B: (100, 1), C: (7, 1)}) == {
        A: (200, 2),
        C: (7, 1),
    }
    assert growth({A: (300, 3)}, {}) == {A: (-300, -3)}


def test_what_grows_throughout_has_grown_in_both_parts_by_the_slower_pace_of_the_two() -> None:
    first = {A: (300, 3), B: (300, 3), C: (-10, -1)}
    second = {A: (1_000, 10), C: (90, 9)}
    assert growing_throughout(first, second, 0.25) == {A: (1_200, 12)}
    assert growing_throughout(first, {A: (90, 1)}, 0.25) == {A: (120, 1)}
