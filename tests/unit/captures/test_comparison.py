"""The difference of two captures, and what it is said to be worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_celery_memory.captures.comparison import Change, Group, caveats, compare
from otel_celery_memory.captures.model import HEAP, PARTIAL, RUNS, CapturedProcess, CaptureError
from tests.unit.captures.examples import CACHE, CAPTURE, FREED, HEAP_AFTER, HEAP_BEFORE, LEAK

TASK = "feeds.refresh"


def test_heaps_are_compared_by_bytes_the_largest_change_first() -> None:
    grown = replace(FREED, size_bytes=-400, blocks=1, line=10, name="app/mail.py:10")
    after = replace(HEAP_AFTER, sites=(*HEAP_AFTER.sites, grown))
    assert compare(HEAP_BEFORE, after, "line") == [
        Change(
            Group(TASK, "app/feeds.py:41", (), 10_485_760, 20_480, "refresh", None),
            Group(TASK, "app/feeds.py:41", (), 11_509_760, 21_480, "refresh", None),
        ),
        Change(
            Group("mail.send", "app/mail.py:9", (), -512, -1, None, None),
            Group("mail.send", "app/mail.py:9", (), 0, 0, None, None),
        ),
        Change(
            Group("mail.send", "app/mail.py:10", (), 0, 0, None, None),
            Group("mail.send", "app/mail.py:10", (), -400, 1, None, None),
        ),
        Change(
            Group(TASK, "app/feeds.py:50", (), 2_048, 2, "refresh", None),
            Group(TASK, "app/feeds.py:50", (), 2_048, 2, "refresh", None),
        ),
    ]


def test_a_change_is_that_of_bytes_and_blocks() -> None:
    change = compare(HEAP_BEFORE, HEAP_AFTER, "line")[0]
    assert (change.size_bytes, change.blocks, change.run_bytes) == (1_024_000, 1_000, None)


@pytest.mark.parametrize("kind", [RUNS, PARTIAL])
def test_sums_over_runs_are_compared_by_their_means(kind: str) -> None:
    # Ten times the bytes over ten times the runs is no change; 100 bytes a run more is one.
    sites = (
        replace(LEAK, size_bytes=LEAK.size_bytes * 10),
        replace(CACHE, size_bytes=200 * 100 + CACHE.size_bytes * 10),
    )
    before = replace(CAPTURE, kind=kind, sites=(LEAK, CACHE), runs={TASK: 20})
    after = replace(CAPTURE, kind=kind, sites=sites, runs={TASK: 200})
    changes = compare(before, after, "line")
    assert [(change.after.name, change.run_bytes) for change in changes] == [
        ("app/feeds.py:50", 100.0),
        ("app/feeds.py:41", 0.0),
    ]


def test_where_nothing_changed_the_larger_place_comes_first() -> None:
    changes = compare(CAPTURE, CAPTURE, "line")
    assert [change.after.name for change in changes] == [
        "app/feeds.py:41",
        "app/feeds.py:50",
        "app/mail.py:9",
    ]


def test_a_task_that_one_capture_did_not_trace_has_no_change_but_is_ranked_by_what_is_known() -> (
    None
):
    before = replace(CAPTURE, sites=(CACHE,), runs={TASK: 20})
    other = replace(LEAK, task="new.task")
    after = replace(CAPTURE, sites=(CACHE, other), runs={TASK: 20, "new.task": 10})
    first, _ = compare(before, after, "line")
    assert (first.after.task, first.before.run_bytes, first.run_bytes) == ("new.task", None, None)
    assert first.after.run_bytes == LEAK.size_bytes / 10


def test_a_place_of_a_traced_task_that_left_nothing_there_before_has_a_change() -> None:
    before = replace(CAPTURE, sites=(CACHE,))
    change = compare(before, CAPTURE, "line")[0]
    assert (change.before.run_bytes, change.run_bytes) == (0.0, LEAK.size_bytes / 20)


def test_growth_comes_before_shrinking_of_the_same_size() -> None:
    before = replace(HEAP_BEFORE, sites=(LEAK,))
    after = replace(HEAP_BEFORE, sites=(replace(LEAK, line=42, name="app/feeds.py:42"),))
    changes = compare(before, after, "line")
    assert [change.size_bytes for change in changes] == [LEAK.size_bytes, -LEAK.size_bytes]


def test_the_same_place_is_found_again_in_another_directory_on_another_machine() -> None:
    moved = replace(LEAK, path="/app/shop/app/feeds.py", stack=())
    (change,) = compare(
        replace(HEAP_BEFORE, sites=(replace(LEAK, stack=()),)),
        replace(HEAP_BEFORE, sites=(moved,)),
        "line",
    )
    assert change.size_bytes == 0


@pytest.mark.parametrize(("one", "other"), [(HEAP, RUNS), (RUNS, PARTIAL), (PARTIAL, HEAP)])
def test_captures_of_different_kinds_are_not_compared(one: str, other: str) -> None:
    with pytest.raises(CaptureError, match=rf"^a capture of kind {one} \(.*of kind {other} \("):
        compare(replace(CAPTURE, kind=one), replace(CAPTURE, kind=other), "line")


def test_tracebacks_of_different_depth_are_not_compared_but_lines_are() -> None:
    deeper = replace(CAPTURE, frames=10)
    with pytest.raises(CaptureError, match=r"^tracebacks of 3 and of 10 frames cannot be compared"):
        compare(CAPTURE, deeper, "traceback")
    assert len(compare(CAPTURE, deeper, "line")) == 3


def test_tracebacks_of_the_same_depth_are_compared() -> None:
    other = replace(LEAK, stack=LEAK.stack[1:])
    after = replace(HEAP_BEFORE, sites=(LEAK, other))
    change = compare(replace(HEAP_BEFORE, sites=(LEAK,)), after, "traceback")[0]
    assert change.after.stack == ("app/feeds.py:41", "json/encoder.py:200")
    assert change.size_bytes == LEAK.size_bytes


def test_two_captures_of_one_worker_a_minute_apart_are_compared_without_notes() -> None:
    assert list(caveats(HEAP_BEFORE, HEAP_AFTER)) == []


def test_reasons_why_a_difference_means_less_are_listed() -> None:
    before = replace(HEAP_AFTER, other_bytes=2_000)
    after = replace(
        HEAP_BEFORE,
        worker="celery@web-2",
        frames=1,
        processes=(CapturedProcess("0", 311, None), CapturedProcess("1", 400, None)),
    )
    assert list(caveats(before, after)) == [
        "the captures are of different workers",
        "AFTER was taken before BEFORE",
        "traced at different depths: different lines may own the same site",
        "1 of 2 processes are gone since BEFORE, and their memory with them",
        "up to 2,000 bytes lie at sites beyond the captures' bound, and in no line",
    ]


def test_runs_may_be_of_processes_that_are_gone() -> None:
    assert list(caveats(CAPTURE, replace(CAPTURE, processes=(), other_bytes=0))) == [
        "up to 300 bytes lie at sites beyond the captures' bound, and in no line"
    ]
