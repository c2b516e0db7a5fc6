"""What is ranked behind whole runs: what grew in a process, what slices saw; and the bounds."""

from __future__ import annotations

from otel_celery_memory.ipc.records import WindowKind
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.window_totals import place_of
from tests.unit.examples import finished, site, window
from tests.unit.reporter.site_totals import Totals, describe


def test_whole_runs_come_first_then_what_grew_in_processes_then_slices() -> None:
    totals = Totals().met()
    totals.run({1: 1})
    totals.window({2: 900, 3: 800}, kind=WindowKind.PARTIAL)
    totals.window({4: 50, 5: 60}, "", kind=WindowKind.PROCESS)
    assert totals.sizes() == [
        ("COMPLETE", 1, 1),
        ("PROCESS", 5, 60),
        ("PROCESS", 4, 50),
        ("PARTIAL", 2, 900),
        ("PARTIAL", 3, 800),
    ]


def test_a_slice_has_the_mean_of_its_windows_and_no_rate() -> None:
    totals = Totals()
    totals.window({2: 900}, kind=WindowKind.PARTIAL)
    totals.window({2: 300, 3: -5}, kind=WindowKind.PARTIAL)
    (found,) = totals.totals.rank(60.0)
    assert (found.size_bytes, found.blocks, found.runs, found.rate_bytes_per_minute) == (
        600,
        10,
        2,
        None,
    )


def test_growth_is_the_sum_over_processes_and_a_newer_comparison_replaces_the_older() -> None:
    totals = Totals()
    totals.window({1: 100, 2: 40}, "", 1, WindowKind.PROCESS, runs=10)
    totals.window({1: 50}, "", 2, WindowKind.PROCESS, runs=20)
    totals.window({1: 300}, "", 1, WindowKind.PROCESS, runs=15)
    (found,) = totals.totals.rank(30.0)
    assert (found.line, found.size_bytes, found.runs, found.task) == (1, 350, 35, "")
    assert (found.size_change_bytes, found.rate_bytes_per_minute) == (350, 700)


def test_the_rate_of_what_grew_is_its_change_and_none_where_it_stands_still() -> None:
    totals = Totals()
    found = []
    for size in (100, 160, 160):
        totals.window({1: size}, "", 1, WindowKind.PROCESS)
        found.append([s.rate_bytes_per_minute for s in totals.totals.rank(30.0)])
    assert found == [[200], [120], [0]]


def test_of_what_grew_a_line_is_one_site_too_with_its_change_since_the_last_events() -> None:
    totals = Totals()
    found = []
    for size in (100, 160):
        totals.totals.window(window(1, "", kind=WindowKind.PROCESS, sites=2))
        for stack in ("x.py:1", "y.py:1"):
            totals.totals.site(site(size, 1, task="", via=stack, kind=WindowKind.PROCESS))
        found.append(totals.totals.peek(60.0, place_of))
        totals.totals.rank(60.0)
    assert [[(s.size_bytes, s.rate_bytes_per_minute) for s in sites] for sites in found] == [
        [(200, 200)],
        [(320, 120)],
    ]


def test_what_had_grown_in_a_process_that_is_gone_is_gone() -> None:
    totals = Totals()
    totals.window({1: 100}, "", 1, WindowKind.PROCESS)
    totals.window({1: 7}, "", 2, WindowKind.PROCESS)
    totals.totals.process_gone(1)
    assert totals.sizes() == [("PROCESS", 1, 7)]
    totals.totals.process_gone(1)


def test_a_capture_of_the_whole_heap_is_no_growth_and_is_not_ranked() -> None:
    totals = Totals()
    totals.window({1: 100}, "", kind=WindowKind.HEAP)
    assert totals.sizes() == []


def test_a_window_of_an_unknown_kind_is_ignored() -> None:
    totals = SiteTotals(describe, 10)
    totals.window(window()._replace(kind=77))
    totals.site(site(100)._replace(kind=77))
    assert totals.rank(60.0) == []


def test_task_names_and_sites_are_bounded_and_the_rest_is_added_up_as_other() -> None:
    totals = SiteTotals(describe, 5_000)
    for number in range(3_000):
        task = f"t{number}"
        totals.finished(finished(task=task))
        totals.window(window(task=task))
        totals.site(site(1, task=task, blocks=10))
    ranked = totals.rank(60.0)
    assert {found.task for found in ranked} == {f"t{number}" for number in range(1_000)} | {
        "_other"
    }
    assert len(ranked) == 1_001


def test_processes_that_grew_are_bounded() -> None:
    totals = SiteTotals(describe, 5_000)
    for pid in range(1, 2_000):
        totals.window(window(pid, "", kind=WindowKind.PROCESS))
        totals.site(site(1, pid, pid=pid, task="", kind=WindowKind.PROCESS))
    assert sorted(found.line for found in totals.rank(60.0)) == [*range(2_000 - 512, 2_000)]


def test_sites_beyond_the_bound_are_summed_under_one_name() -> None:
    totals = Totals(top=5_000).met()
    totals.run(dict.fromkeys(range(1, 2501), 10))
    ranked = totals.totals.rank(60.0)
    assert len(ranked) == 2_001
    assert [(s.path, s.line, s.size_bytes) for s in ranked if s.path == "_other"] == [
        ("_other", 0, 5_000)
    ]
