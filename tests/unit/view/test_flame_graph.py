"""A flame graph has each stack's bytes at each of its places, callers above what they call."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from otel_celery_memory.view.flame_graph import BOXES_MAX, flame_graph
from tests.unit.captures.examples import CACHE, CAPTURE, FREED, HEAP_BEFORE, LEAK

LEAK_BYTES, CACHE_BYTES = LEAK.size_bytes, CACHE.size_bytes


def test_callers_come_first_with_the_sum_of_what_is_below_them() -> None:
    assert [(each.depth, each.name, each.size_bytes) for each in flame_graph(CAPTURE)] == [
        (0, "feeds.refresh", LEAK_BYTES + CACHE_BYTES),
        (1, "app/tasks.py:7", LEAK_BYTES),
        (2, "app/feeds.py:41 in refresh", LEAK_BYTES),
        (3, "json/encoder.py:200", LEAK_BYTES),
        (1, "app/feeds.py:50 in refresh", CACHE_BYTES),
    ]


def test_boxes_of_one_caller_lie_side_by_side_within_it() -> None:
    starts = {each.name: each.start_bytes for each in flame_graph(CAPTURE)}
    assert starts["app/tasks.py:7"] == starts["json/encoder.py:200"] == 0
    assert starts["app/feeds.py:50 in refresh"] == LEAK_BYTES


def test_what_freed_more_than_it_left_has_no_box() -> None:
    assert all("mail" not in each.name for each in flame_graph(CAPTURE))


def test_sites_without_a_task_begin_with_their_outermost_place() -> None:
    sites = tuple(replace(site, task="") for site in HEAP_BEFORE.sites)
    first = flame_graph(replace(HEAP_BEFORE, sites=sites))[0]
    assert (first.depth, first.name) == (0, "app/tasks.py:7")


def test_a_capture_without_stacks_has_no_flame_graph() -> None:
    assert flame_graph(replace(CAPTURE, sites=(CACHE, FREED))) == []


def test_of_many_places_the_largest_are_kept_with_their_callers() -> None:
    sites = tuple(
        replace(
            LEAK,
            size_bytes=1_000 + number,
            stack=((f"/srv/shop/app/m{number}.py", 1), ("/srv/shop/app/x.py", number)),
        )
        for number in range(BOXES_MAX)
    )
    boxes = flame_graph(replace(CAPTURE, sites=sites))
    assert len(boxes) == BOXES_MAX
    assert any("m399.py" in each.name for each in boxes)
    assert not any("m0.py" in each.name for each in boxes)
    depths = [each.depth for each in boxes]
    assert all(after <= before + 1 for before, after in pairwise(depths))
