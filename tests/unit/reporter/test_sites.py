"""Sites added up over runs and children, ranked by how fast they grow."""

from __future__ import annotations

from otel_celery_memory.records import Site, SitesWindow
from otel_celery_memory.reporter.sites import CodePlace, SiteTotals
from otel_celery_memory.telemetry.events import RankedSite
from tests.unit.examples import finished

PATH = "/srv/app/feeds.py"


def describe(path: str, line: int) -> CodePlace:
    return CodePlace(f"app/feeds.py:{line}", f"function_{line}" if line < 100 else None)


class Totals:
    """Site totals, fed run by run."""

    def __init__(self, top: int = 10) -> None:
        self.totals = SiteTotals(describe, top)

    def run(self, sizes: dict[int, int] | None, task: str = "a") -> None:
        """A run that left `sizes` alive by line, two blocks each; ``None`` was not traced."""
        self.totals.finished(finished(task=task))
        if sizes is None:
            return
        self.totals.window(SitesWindow(1, 0, len(sizes), task))
        for line, size in sizes.items():
            self.totals.site(Site(1, size, 2, line, task, PATH, ""))

    def rates(self, interval_s: float = 60.0) -> list[tuple[str, int, int]]:
        """Task, line and rate of the ranked sites."""
        return [(s.task, s.line, s.rate_bytes_per_minute) for s in self.totals.rank(interval_s)]


def test_a_ranked_site_says_everything_about_it() -> None:
    totals = Totals()
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
            task="a",
            size_bytes=200,
            blocks=2,
            size_change_bytes=200,
            runs=2,
            rate_bytes_per_minute=1_600,
        )
    ]


def test_the_rate_counts_the_runs_that_were_not_traced_as_well() -> None:
    totals = Totals()
    totals.run({1: 100})
    for _ in range(9):
        totals.run(None)
    assert totals.rates() == [("a", 1, 1_000)]


def test_a_window_that_closes_in_the_interval_after_its_run_is_ranked_by_that_run() -> None:
    totals = Totals()
    totals.run(None)
    assert totals.rates() == []
    totals.totals.window(SitesWindow(1, 0, 1, "a"))
    totals.totals.site(Site(1, 100, 2, 1, "a", PATH, ""))
    assert totals.rates() == [("a", 1, 100)]


def test_the_fastest_come_first_and_no_more_than_the_top() -> None:
    totals = Totals(top=3)
    totals.run({1: 10, 2: 40, 3: 20})
    totals.run({1: 30}, "b")
    totals.run({1: 30}, "b")
    assert totals.rates() == [("b", 1, 60), ("a", 2, 40), ("a", 3, 20)]


def test_equal_rates_are_ranked_the_same_way_every_time() -> None:
    totals = Totals()
    totals.run({2: 10, 1: 10}, "b")
    totals.run({9: 10})
    assert totals.rates() == [("a", 9, 10), ("b", 1, 10), ("b", 2, 10)]


def test_what_shrank_or_netted_out_is_not_told() -> None:
    totals = Totals()
    totals.run({1: -50, 2: 70, 3: 10})
    totals.run({1: 20, 2: -70, 3: 10})
    assert totals.rates() == [("a", 3, 20)]


def test_every_interval_begins_at_nothing() -> None:
    totals = Totals()
    totals.run({1: 100})
    assert totals.rates() == [("a", 1, 100)]
    assert totals.rates() == []


def test_the_change_is_against_the_interval_before() -> None:
    totals = Totals()
    changes = []
    for sizes in ({1: 100}, {1: 130}, {2: 5}, {1: 40}):
        totals.run(sizes)
        changes.append([(s.line, s.size_change_bytes) for s in totals.totals.rank(60.0)])
    assert changes == [[(1, 100)], [(1, 30)], [(2, 5)], [(1, 40)]]


def test_the_same_line_by_two_ways_is_two_sites() -> None:
    totals = SiteTotals(describe, 10)
    totals.finished(finished(task="a"))
    totals.window(SitesWindow(1, 0, 2, "a"))
    for stack, size in (("x.py:1", 30), ("y.py:2", 20)):
        totals.site(Site(1, size, 1, 7, "a", PATH, stack))
    assert [(s.stack, s.size_bytes) for s in totals.rank(60.0)] == [
        ("x.py:1", 30),
        ("y.py:2", 20),
    ]


def test_a_site_whose_window_was_dropped_is_not_ranked_and_hurts_nobody() -> None:
    totals = SiteTotals(describe, 10)
    totals.site(Site(1, 30, 1, 7, "a", PATH, ""))
    assert totals.rank(60.0) == []


def test_tasks_and_sites_are_bounded() -> None:
    totals = SiteTotals(describe, 10)
    for number in range(6_000):
        totals.finished(finished(task=f"t{number}"))
        totals.window(SitesWindow(1, 0, 1, f"t{number}"))
        totals.site(Site(1, 1, 1, number, "t0", PATH, ""))
    sizes = [len(c) for c in (totals._runs, totals._traced_runs, totals._size_bytes)]
    # The last of each is _other, where all the rest is added up.
    assert sizes == [1_001, 1_001, 5_001]
    assert (totals._runs["_other"], totals._traced_runs["_other"]) == (5_000, 5_000)
    assert totals._size_bytes["t0", "_other", 0, ""] == 1_000
    totals.site(Site(1, 1, 1, 0, "t0", PATH, ""))
    assert totals._size_bytes["t0", PATH, 0, ""] == 2
