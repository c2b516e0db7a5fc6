"""Windows added up over intervals: means by task and site, the steady one without the largest."""

from __future__ import annotations

from otel_celery_memory.reporter.window_totals import SiteMean, WindowTotals
from tests.unit.examples import site

KEY = ("a", "/srv/app/feeds.py", 1, "")


def totals_of(*sizes: int) -> WindowTotals:
    """One window of task ``a`` for each size, which is at line 1."""
    totals = WindowTotals()
    for size in sizes:
        totals.window("a", 1)
        if size:
            totals.site("a", site(size, blocks=2))
    return totals


def test_nothing_is_known_of_nothing() -> None:
    assert (WindowTotals().means(), WindowTotals().fresh("a"), WindowTotals().tasks()) == (
        {},
        0,
        set(),
    )


def test_up_to_two_windows_the_steady_mean_is_the_mean() -> None:
    assert totals_of(10, 30).means() == {KEY: SiteMean(20.0, 2.0, 20.0, 2, 2, 2)}


def test_from_three_on_the_steady_mean_leaves_the_largest_window_out() -> None:
    assert totals_of(10, 30, 500).means() == {KEY: SiteMean(180.0, 2.0, 20.0, 3, 3, 3)}


def test_what_was_freed_counts_and_is_never_the_largest() -> None:
    assert totals_of(-30, -30, -30).means() == {KEY: SiteMean(-30.0, 2.0, -45.0, 3, 3, 3)}


def test_a_window_without_the_site_counts_in_its_mean() -> None:
    assert totals_of(40, 0, 0, 0).means() == {KEY: SiteMean(10.0, 0.5, 0.0, 4, 4, 1)}


def test_the_largest_is_that_of_all_intervals() -> None:
    totals = totals_of(10, 500)
    totals.next_interval()
    for size in (20, 30):
        totals.window("a", 1)
        totals.site("a", site(size, blocks=2))
    assert totals.means() == {KEY: SiteMean(140.0, 2.0, 20.0, 4, 4, 4)}


def test_after_ten_intervals_an_interval_is_removed_with_its_windows() -> None:
    totals = totals_of(10)
    for _ in range(9):
        totals.next_interval()
    assert (list(totals.means()), totals.tasks(), totals.fresh("a")) == ([KEY], {"a"}, 0)
    totals.next_interval()
    assert (totals.means(), totals.tasks()) == ({}, set())


def test_a_site_whose_window_was_dropped_has_no_mean() -> None:
    totals = WindowTotals()
    totals.site("a", site(10))
    assert totals.means() == {}


def test_cleared_windows_are_empty() -> None:
    totals = totals_of(10)
    totals.clear()
    assert (totals.means(), totals.fresh("a")) == ({}, 0)
    totals.window("a", 1)
    assert totals.fresh("a") == 1


def test_a_mean_is_of_the_windows_of_its_own_task() -> None:
    totals = totals_of(10)
    totals.window("b", 1)
    totals.window("b", 1)
    totals.site("b", site(10))
    assert {key[0]: mean.size_bytes for key, mean in totals.means().items()} == {"a": 10, "b": 5}
