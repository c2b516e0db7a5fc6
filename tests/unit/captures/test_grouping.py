"""Sites are chosen by task and file and grouped by line, file, function or traceback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_celery_memory.captures.comparison import Group, SiteFilter, grouped, total
from otel_celery_memory.captures.model import HEAP, CapturedSite
from tests.unit.captures.examples import APP, CACHE, CAPTURE, FREED, LEAK

TASK = "feeds.refresh"
STACK = ("app/tasks.py:7", "app/feeds.py:41", "json/encoder.py:200")
OTHER_WAY = replace(LEAK, stack=((APP, 60), (APP, 41)), size_bytes=100, blocks=1)
CAPTURE_WITH_TWO_WAYS = replace(CAPTURE, sites=(*CAPTURE.sites, OTHER_WAY))
MAIL = Group("mail.send", "app/mail.py:9", (), -512, -1, None, 4)


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        (
            "line",
            [
                Group(TASK, "app/feeds.py:41", (), 10_485_860, 20_481, "refresh", 20),
                Group(TASK, "app/feeds.py:50", (), 2_048, 2, "refresh", 20),
                MAIL,
            ],
        ),
        (
            "file",
            [
                Group(TASK, "app/feeds.py", (), 10_487_908, 20_483, None, 20),
                replace(MAIL, name="app/mail.py"),
            ],
        ),
        (
            "function",
            [Group(TASK, "app/feeds.py in refresh", (), 10_487_908, 20_483, None, 20), MAIL],
        ),
        (
            "traceback",
            [
                Group(TASK, "app/feeds.py:41", STACK, 10_485_760, 20_480, "refresh", 20),
                Group(TASK, "app/feeds.py:50", ("app/feeds.py:50",), 2_048, 2, "refresh", 20),
                Group(
                    TASK,
                    "app/feeds.py:41",
                    ("app/feeds.py:60", "app/feeds.py:41"),
                    100,
                    1,
                    "refresh",
                    20,
                ),
                MAIL,
            ],
        ),
    ],
)
def test_sites_of_one_task_and_place_are_added_up_largest_first(
    by: str, groups: list[Group]
) -> None:
    found = grouped(CAPTURE_WITH_TWO_WAYS, by)
    assert found == groups
    assert total(found) == (10_487_396, 20_482)


def test_one_line_in_two_tasks_is_two_groups() -> None:
    capture = replace(CAPTURE, sites=(CACHE, replace(CACHE, task="mail.send")))
    assert [(group.task, group.run_bytes) for group in grouped(capture, "line")] == [
        (TASK, 2_048 / 20),
        ("mail.send", 2_048 / 4),
    ]


def test_what_was_not_added_up_over_runs_has_no_mean_and_neither_has_a_task_without_runs() -> None:
    heap = grouped(replace(CAPTURE, kind=HEAP), "line")
    assert {(group.runs, group.run_bytes) for group in heap} == {(None, None)}
    without = grouped(replace(CAPTURE, runs={}), "line")
    assert {(group.runs, group.run_bytes) for group in without} == {(0, None)}


def test_a_place_is_shown_with_its_function_where_that_is_known() -> None:
    places = [group.place for group in grouped(CAPTURE, "line")]
    assert places == ["app/feeds.py:41 in refresh", "app/feeds.py:50 in refresh", "app/mail.py:9"]


@pytest.mark.parametrize(
    ("site_filter", "sites"),
    [
        (SiteFilter(task="mail.*"), (FREED,)),
        (SiteFilter(task="MAIL.*"), ()),
        (SiteFilter(include=("*/mail.py", "*/nothing")), (FREED,)),
        (SiteFilter(include=("*/app/*",), exclude=("*/mail.py",)), (LEAK, CACHE)),
        (SiteFilter(include=("/srv/*",)), (LEAK, CACHE, FREED)),
        (SiteFilter(exclude=("*",)), ()),
    ],
)
def test_sites_are_filtered_by_task_and_by_file(
    site_filter: SiteFilter, sites: tuple[CapturedSite, ...]
) -> None:
    chosen = site_filter.apply(CAPTURE)
    assert chosen == replace(CAPTURE, sites=sites, other_bytes=0, other_blocks=0)


def test_the_most_recent_matching_line_takes_over_a_site_whose_owner_does_not_match() -> None:
    encoder = "/usr/lib/python3.11/json/encoder.py"
    moved = replace(LEAK, path=encoder, line=200, function=None, name="json/encoder.py:200")
    assert SiteFilter(TASK, exclude=("*/feeds.py",)).apply(CAPTURE).sites == (moved,)


def test_a_line_that_takes_over_a_site_keeps_the_function_that_is_known_of_it() -> None:
    caller = replace(FREED, path="/srv/shop/app/tasks.py", line=7, name="app/tasks.py:7")
    capture = replace(CAPTURE, sites=(LEAK, replace(caller, function="refresh_all")))
    (site, _) = SiteFilter(include=("*/tasks.py",)).apply(capture).sites
    assert (site.name, site.function, site.stack) == ("app/tasks.py:7", "refresh_all", LEAK.stack)


def test_an_empty_filter_leaves_the_capture_unchanged() -> None:
    assert SiteFilter().apply(CAPTURE) is CAPTURE
