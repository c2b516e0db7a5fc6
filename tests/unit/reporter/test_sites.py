"""Sites of whole runs: means over ten intervals, ranked by how fast they grow."""

from __future__ import annotations

from otel_celery_memory.ipc.records import WindowKind
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.state.totals import Kept
from otel_celery_memory.reporter.window_totals import place_of
from otel_celery_memory.telemetry.events import RankedSite
from tests.unit.examples import finished, site, window
from tests.unit.reporter.site_totals import PATH, Totals, describe


def test_a_ranked_site_has_all_its_values() -> None:
    totals = Totals().met()
    totals.run({7: 300})
    totals.run({7: 100})
    totals.run(None)
    totals.run(None)
    assert totals.totals.rank(30.0) == [
        RankedSite(
            rank=1,
            name="app/feeds.py:7",
            path=PATH,
            line=7,
            function="function_7",
            stack="",
            via="",
            where="",
            task="a",
            kind=WindowKind.COMPLETE,
            size_bytes=200,
            blocks=10,
            size_change_bytes=200,
            runs=2,
            rate_bytes_per_minute=1_600,
        )
    ]


def test_the_rate_counts_the_runs_that_were_not_traced_as_well() -> None:
    totals = Totals().met()
    totals.run({1: 100})
    for _ in range(9):
        totals.run(None)
    assert totals.rates() == [("a", 1, 1_000)]


def test_a_window_that_closes_in_the_interval_after_its_run_is_ranked_by_that_run() -> None:
    totals = Totals().met()
    totals.run(None)
    assert totals.rates() == []
    totals.window({1: 100})
    assert totals.rates() == [("a", 1, 100)]


def test_the_fastest_come_first_and_no_more_than_the_top() -> None:
    totals = Totals(top=3).met("a", "b")
    totals.run({1: 10, 2: 40, 3: 20})
    totals.run({1: 30}, "b")
    totals.run({1: 30}, "b")
    assert totals.rates() == [("b", 1, 60), ("a", 2, 40), ("a", 3, 20)]


def test_equal_rates_are_ranked_the_same_way_every_time() -> None:
    totals = Totals().met("a", "b")
    totals.run({2: 10, 1: 10}, "b")
    totals.run({9: 10})
    assert totals.rates() == [("b", 2, 10), ("b", 1, 10), ("a", 9, 10)]


def test_sites_that_shrank_or_netted_out_are_not_ranked() -> None:
    totals = Totals().met()
    totals.run({1: -50, 2: 70, 3: 10})
    totals.run({1: 20, 2: -70, 3: 10})
    assert totals.rates() == [("a", 3, 20)]


def test_what_happened_in_one_window_of_three_or_more_is_no_leak() -> None:
    totals = Totals().met()
    for sizes in ({1: 100, 2: 9_000}, {1: 100}, {1: 100}):
        totals.run(sizes)
    assert totals.rates() == [("a", 1, 300)]


def test_a_mean_of_runs_includes_those_that_left_nothing_there() -> None:
    totals = Totals().met()
    for sizes in ({1: 400}, {1: 400}, {}, {}):
        totals.run(sizes)
    # The rate leaves the largest out, the size does not.
    assert [(s.size_bytes, s.rate_bytes_per_minute) for s in totals.totals.rank(60.0)] == [
        (200, 533)
    ]


def test_windows_are_kept_over_ten_intervals_so_that_rare_tasks_are_ranked() -> None:
    totals = Totals().met()
    totals.run({1: 100})
    seen = [totals.rates()]
    for _ in range(10):
        totals.run(None)
        seen.append(totals.rates())
    assert seen == [[("a", 1, 100)]] * 10 + [[]]


def test_a_task_that_does_not_run_any_more_has_no_rate_and_is_not_ranked() -> None:
    totals = Totals().met()
    totals.run({1: 100})
    assert (totals.rates(), totals.rates()) == ([("a", 1, 100)], [])


def test_the_change_is_against_the_last_event_of_the_site() -> None:
    totals = Totals().met()
    changes = []
    for size in (100, 130, 70):
        totals.run({1: size})
        changes.append([(s.size_bytes, s.size_change_bytes) for s in totals.totals.rank(60.0)])
    assert changes == [[(100, 100)], [(115, 15)], [(100, -15)]]


def test_peek_does_not_begin_a_new_interval() -> None:
    totals = Totals().met()
    totals.run({1: 100})
    rankings = [totals.totals.peek(60.0) for _ in range(3)]
    assert rankings == [totals.totals.rank(60.0)] * 3


def test_what_a_single_run_left_alive_counts_only_while_there_is_nothing_better() -> None:
    totals = Totals()
    totals.window({1: 5_000, 2: 10}, kind=WindowKind.FIRST_RUN)
    found = totals.totals.peek(60.0)
    assert [(s.kind.name, s.line, s.rate_bytes_per_minute) for s in found] == [
        ("FIRST_RUN", 1, None),
        ("FIRST_RUN", 2, None),
    ]
    totals.run({2: 30})
    assert totals.sizes() == [("COMPLETE", 2, 30)]


def test_a_window_that_shows_nothing_takes_the_single_run_s_sites_away() -> None:
    totals = Totals()
    totals.window({1: 5_000}, kind=WindowKind.FIRST_RUN)
    totals.run({})
    assert totals.sizes() == []


def test_what_windows_show_once_is_no_growth() -> None:
    totals = SiteTotals(describe, 10)
    for number in range(1, 6):
        for _ in range(10):
            totals.finished(finished(task="a"))
        totals.window(window(task="a", runs=10, sites=2))
        totals.site(site(128, 1, task="a", blocks=2))
        totals.site(site(640, 2, task="a", blocks=10))
        assert [(s.line, s.blocks, s.runs) for s in totals.peek(60.0)] == [(2, 1, 10 * number)]


def test_of_windows_of_one_run_each_an_object_a_run_is_growth_and_one_shown_once_is_none() -> None:
    totals = SiteTotals(describe, 10)
    for number in range(4):
        totals.finished(finished(task="a"))
        totals.window(window(task="a", runs=1, sites=2))
        totals.site(site(64, 1, task="a", blocks=1))
        if not number:
            totals.site(site(128, 2, task="a", blocks=2))
    assert [(s.line, s.blocks, s.runs) for s in totals.peek(60.0)] == [(1, 1, 4)]


def test_many_small_sites_of_whole_runs_leave_a_third_of_the_places_to_the_others() -> None:
    totals = Totals(top=6).met()
    totals.run(dict.fromkeys(range(1, 9), 10))
    totals.window({20: 5_000, 21: 4_000}, "b", kind=WindowKind.FIRST_RUN)
    totals.window({30: 70}, "", kind=WindowKind.PROCESS)
    runs = [("COMPLETE", line, 10) for line in (1, 2, 3, 4)]
    assert totals.sizes() == [*runs, ("PROCESS", 30, 70), ("FIRST_RUN", 20, 5_000)]


def test_places_that_no_other_site_wants_are_for_whole_runs() -> None:
    totals = Totals(top=6).met()
    totals.run(dict.fromkeys(range(1, 9), 10))
    totals.window({20: 5_000}, "b", kind=WindowKind.FIRST_RUN)
    runs = [("COMPLETE", line, 10) for line in (1, 2, 3, 4, 5)]
    assert totals.sizes() == [*runs, ("FIRST_RUN", 20, 5_000)]


def test_the_same_line_through_two_lines_of_libraries_is_two_sites() -> None:
    totals = SiteTotals(describe, 10)
    totals.finished(finished(task="a"))
    totals.window(window(task="a", sites=2))
    for via, size in (("x.py:1", 30), ("y.py:2", 20)):
        totals.site(site(size, 7, task="a", via=via, blocks=10))
    assert [(s.via, s.size_bytes) for s in totals.rank(60.0)] == [
        ("app/feeds.py:1", 30),
        ("app/feeds.py:2", 20),
    ]


def test_of_places_a_line_is_one_whatever_it_went_through() -> None:
    totals = Totals(top=2).met()
    for number in range(4):
        totals.totals.finished(finished(task="a"))
        totals.totals.window(window(task="a", sites=4))
        for via, size in {f"x.py:{number}": 30, "y.py:1": 10, "z.py:1": -4}.items():
            totals.totals.site(site(size, 1, task="a", via=via, blocks=10))
        totals.totals.site(site(5, 2, task="a", via="y.py:2", blocks=10))
    found = totals.totals.peek(60.0, place_of)
    assert [(s.line, s.via, s.size_bytes, s.blocks, s.runs) for s in found] == [
        (1, "", 36, 30, 4),
        (2, "", 5, 10, 4),
    ]
    # In all 4 * 36 without the 30 that were left in one run, over three runs; four a minute.
    assert found[0].rate_bytes_per_minute == 4 * (4 * 36 - 30) / 3


def test_the_places_of_a_ranking_are_its_lines_until_the_next_one_or_a_new_beginning() -> None:
    totals = SiteTotals(describe, 2)
    totals.finished(finished(task="a"))
    for stack in ("x.py:1", "y.py:1", "z.py:1"):
        totals.window(window(task="a", sites=1, kind=WindowKind.PARTIAL))
        totals.site(site(30, 1, task="a", via=stack, kind=WindowKind.PARTIAL))
    assert len(totals.rank(60.0)) == 2
    assert [(s.line, s.stack, s.size_bytes, s.runs) for s in totals.places] == [(1, "", 30, 3)]
    for _ in range(10):
        totals.rank(60.0)
    assert totals.places == []
    totals.window(window(task="a", sites=1, kind=WindowKind.PARTIAL))
    totals.site(site(30, 1, task="a", kind=WindowKind.PARTIAL))
    totals.rank(60.0)
    totals.reset()
    assert totals.places == []


def test_a_site_whose_window_was_dropped_is_ignored() -> None:
    totals = SiteTotals(describe, 10)
    for kind in WindowKind:
        totals.site(site(30, kind=kind))
    assert totals.rank(60.0) == []


def test_after_reset_no_site_was_emitted_before() -> None:
    totals = Totals()
    totals.run({1: 100})
    totals.window({2: 50}, kind=WindowKind.PARTIAL)
    totals.window({3: 50}, "", kind=WindowKind.PROCESS)
    totals.totals.rank(60.0)
    totals.totals.reset()
    totals.run(None)
    assert totals.totals.rank(60.0) == []
    totals.run({1: 100})
    assert totals.totals.rank(60.0)[0].size_change_bytes == 100


def test_sites_of_a_task_claim_no_more_than_its_runs_keep_by_the_counters() -> None:
    kept = {
        "full cache": Kept(0.0, 90.0, 30, True),
        "leak": Kept(400.0, 500.0, 30, False),
        "seldom": Kept(0.0, 90.0, 20, True),
        "nobody knows": Kept(0.0, 500.0, 30, False),
        "less by far": Kept(0.0, 500.0, 30, False),
        "small blocks": Kept(0.0, 150.0, 30, False),
        "few samples": Kept(0.0, 90.0, 4, False),
        "tuples": Kept(0.0, 90.0, 30, True),
        "warmed up": Kept(None, 0.0, 2**63, True),
    }
    totals = SiteTotals(describe, 10, kept.get)
    for task, line, size, blocks in (
        ("full cache", 1, 90_000, 40),
        ("leak", 2, 40_000, 40),
        ("leak", 3, 120_000, 40),
        ("unknown", 4, 5_000, 40),
        ("seldom", 5, 6_000, 4),
        ("nobody knows", 6, 28_000, 40),
        ("less by far", 10, 40_000, 40),
        ("small blocks", 11, 20_000, 40),
        ("few samples", 7, 60_000, 40),
        ("tuples", 8, 4_000, 40),
        ("warmed up", 9, 60_000, 40),
    ):
        totals.finished(finished(1, task=task))
        totals.window(window(1, task, kind=WindowKind.COMPLETE, runs=40, sites=1))
        totals.site(site(size, line, task=task, kind=WindowKind.COMPLETE, blocks=blocks))
    found = {each.line: each.size_bytes for each in totals.peek(60.0)}
    # A small block is one of 100 bytes to the counters, whatever it has.
    assert found == {2: 125, 3: 375, 4: 125, 5: 150, 6: 700, 8: 100, 11: 150}


def test_what_c_code_holds_is_of_the_first_line_that_leaves_an_object_in_each_run() -> None:
    def sizes(kept: Kept, blocks: int = 40, of_library: int = 0) -> dict[int, int]:
        totals = SiteTotals(describe, 10, {"a": kept}.get)
        totals.finished(finished(1, task="a"))
        totals.window(window(1, "a", kind=WindowKind.COMPLETE, runs=40, sites=2))
        totals.site(site(8_000, 1, task="a", blocks=blocks, of_library=of_library))
        totals.site(site(4_000, 2, task="a", blocks=20))
        return {each.line: each.size_bytes for each in totals.peek(60.0)}

    native = Kept(1_000_000.0, 1_000_000.0, 30, False)
    assert sizes(native) == {1: 999_900, 2: 100}
    # No object of it in each run, none of the user's, too few samples, or the lines are most of it.
    assert sizes(native, blocks=20) == {1: 200, 2: 100}
    assert sizes(native, of_library=1) == {1: 200, 2: 100}
    assert sizes(native._replace(runs=3)) == {1: 200, 2: 100}
    assert sizes(Kept(2_000.0, 2_000.0, 30, False)) == {1: 200, 2: 100}


def test_lines_of_the_user_come_before_those_of_libraries_in_the_same_task() -> None:
    totals = SiteTotals(describe, 10)
    rows = ((1, "a", 90_000, 1), (2, "a", 9_000, 0), (3, "a", 900, 0), (4, "b", 30_000, 0))
    for task in ("a", "b"):
        totals.finished(finished(1, task=task))
        totals.window(window(1, task, kind=WindowKind.COMPLETE, runs=40, sites=3))
        for line, of, size, of_library in rows:
            if of == task:
                totals.site(site(size, line, task=task, blocks=40, of_library=of_library))
    assert [each.line for each in totals.peek(60.0)] == [4, 2, 1, 3]


def test_a_receiver_of_the_user_s_comes_before_libraries_that_it_may_have_called() -> None:
    totals = SiteTotals(describe, 10)
    totals.finished(finished(1, task="a"))
    for task in ("a", ""):
        totals.window(window(1, task, kind=WindowKind.COMPLETE, runs=40, sites=1))
    totals.site(site(90_000, 1, task="a", blocks=40, of_library=1))
    totals.site(site(9_000, 2, task="", blocks=40, where="receiver"))
    assert [each.line for each in totals.peek(60.0)] == [2, 1]


def test_a_line_of_the_user_s_has_all_that_went_through_it() -> None:
    totals = SiteTotals(describe, 10)
    totals.finished(finished(1, task="a"))
    totals.window(window(1, "a", kind=WindowKind.COMPLETE, runs=40, sites=9))
    totals.site(site(90_000, 1, task="a", blocks=40, of_library=1))
    for number in range(8):
        totals.site(site(1_000, 2, task="a", blocks=40, via=f"x.py:{number}"))
    assert [each.line for each in totals.peek(60.0)] == [*[2] * 8, 1]


def test_library_code_of_no_task_claims_no_more_than_the_task_that_keeps_least() -> None:
    kept = {"": Kept(0.0, 90.0, 30, True), "leak": Kept(400.0, 500.0, 30, False)}
    totals = SiteTotals(describe, 10, kept.get)
    totals.finished(finished(1, task="leak"))
    totals.window(window(1, "", kind=WindowKind.COMPLETE, runs=40, sites=3))
    totals.site(site(6_000, 1, task="", blocks=40, where="idle", of_library=1))
    totals.site(site(6_000, 2, task="", blocks=40, where="receiver", of_library=1))
    totals.site(site(6_000, 3, task="", blocks=40, where="idle"))
    assert {each.line for each in totals.peek(60.0)} == {2, 3}


def test_library_code_of_no_task_is_not_shown_where_some_task_keeps_nothing() -> None:
    totals = SiteTotals(describe, 10, {"": Kept(0.0, 900.0, 30, False)}.get)
    totals.finished(finished(1, task="a"))
    totals.window(window(1, "", kind=WindowKind.COMPLETE, runs=40, sites=1))
    totals.site(site(6_000, 1, task="", blocks=40, where="idle", of_library=1))
    assert totals.peek(60.0) == []


def test_what_changes_in_most_windows_is_churn_where_sampled_runs_keep_nothing() -> None:
    def shown(*in_windows: bool) -> bool:
        totals = SiteTotals(describe, 10, {"a": Kept(0.0, 130.0, 20, True)}.get)
        totals.finished(finished(1, task="a"))
        for has_grown in in_windows:
            totals.window(window(1, "a", kind=WindowKind.COMPLETE, runs=35, sites=int(has_grown)))
            if has_grown:
                totals.site(site(6_000, 1, task="a", blocks=4 if len(in_windows) > 1 else 5))
        return bool(totals.peek(60.0))

    # A few blocks in each window, of runs that keep nothing: a slot, or a full cache.
    assert not shown(True, True, True, True)
    # A leak in few runs is in few windows, and in none of twenty samples.
    assert shown(True)


def test_a_line_in_few_windows_is_shown_if_it_explains_what_its_task_keeps() -> None:
    def shown(kept: float, *, each_window: bool) -> bool:
        totals = SiteTotals(describe, 10, {"a": Kept(kept, 2_000.0, 300, False)}.get)
        totals.finished(finished(1, task="a"))
        for number in range(10):
            leaks = each_window or number % 3 == 0
            totals.window(window(1, "a", kind=WindowKind.COMPLETE, runs=40, sites=int(leaks)))
            if leaks:
                totals.site(site(100_000, 1, task="a"))
        return bool(totals.peek(60.0))

    assert shown(1_000.0, each_window=False)
    assert not shown(0.0, each_window=False)
    # What a window shows once is in each of them.
    assert not shown(1_000.0, each_window=True)


def test_a_line_in_one_window_is_shown_if_it_is_as_large_as_what_a_sampled_run_has_kept() -> None:
    def shown(largest: float, kept: float = 1_000.0, of_library: int = 0) -> list[int | None]:
        known = Kept(kept, 2_000.0, 300, False, largest_bytes=largest)
        totals = SiteTotals(describe, 10, {"a": known}.get)
        totals.finished(finished(1, task="a"))
        for number in range(10):
            totals.window(window(1, "a", kind=WindowKind.COMPLETE, runs=40, sites=number == 3))
            if number == 3:
                totals.site(site(100_000, 1, task="a", blocks=1, of_library=of_library))
        return [each.rate_bytes_per_minute for each in totals.peek(60.0)]

    assert shown(largest=110_000.0) == [100_000]
    assert shown(largest=10_000.0) == shown(largest=900_000.0) == []
    assert shown(largest=110_000.0, kept=0.0) == []
    assert shown(largest=110_000.0, of_library=1) == []


def test_what_grows_while_the_worker_warms_up_is_no_site() -> None:
    warms_up = [True]
    known: dict[str, Kept] = {}
    totals = SiteTotals(describe, 10, known.get, lambda: warms_up[0])
    totals.finished(finished(1, task="a"))
    totals.window(window(1, "a", kind=WindowKind.COMPLETE, runs=40, sites=1))
    totals.site(site(6_000, 1, task="a", blocks=40))
    assert totals.peek(60.0) == []
    warms_up[0] = False
    assert totals.peek(60.0) == []
    known["a"] = Kept(6_000.0, 7_000.0, 10, is_nothing=False)
    assert [each.line for each in totals.peek(60.0)] == [1]
    # A cache that was filled then.
    known["a"] = Kept(0.0, 10.0, 10, is_nothing=True)
    totals.window(window(1, "a", kind=WindowKind.COMPLETE, runs=40, sites=0))
    assert totals.peek(60.0) == []


def test_library_code_of_all_runs_is_told_only_where_counters_speak_for_it() -> None:
    def told(where: str, kept: Kept | None) -> list[int]:
        totals = SiteTotals(describe, 10, lambda task: kept)
        totals.finished(finished(1, task="a"))
        totals.window(window(1, "", kind=WindowKind.COMPLETE, runs=40, sites=1))
        totals.site(site(6_000, 7, task="", blocks=40)._replace(of_library=1, where=where))
        return [each.line for each in totals.peek(60.0)]

    assert told("", None) == []
    assert told("idle", None) == [7]
    assert told("", Kept(150.0, 200.0, 20, is_nothing=False)) == [7]
