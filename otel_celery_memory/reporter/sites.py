"""Ranks the sites to emit at each interval: adds up traced windows, ranks sites, names them.

The order of the ranking:

1. sites that several runs in a row have left behind, by how fast they grow, the user's lines
   first;
2. sites that grow in a process outside of runs;
3. of tasks without the first, sites that were alive after a single run;
4. sites that were alive when the traced part of a run ended, and may have been freed later.

A third of the ranks is for 2 to 4 if there are any: many small sites of whole runs must not hide a
large one of another kind.

**Counters have the last word.** A window compares two looks, and what it takes for growth may be a
full cache that changes, or what each run shows once. What sampled runs keep by the allocators'
counters is exact (`worker/measuring/run_counters.py`). So the sites of a task together claim no
more than that, and none of a task that keeps nothing. A site that grows in few runs is told all the
same, as those may not be among the samples.

Memory that C code holds by itself, as the pages of a database, is in the counters and not in
``tracemalloc``: lines of its task show the few objects that hold it. Where the counters say far
more than the lines of a task together, its first line answers for the rest, if each run leaves an
object there.

Code of Celery or another library that belongs to no task runs with all of them, so it keeps no more
than the task does that keeps least. What a window shows of it beyond that is a dict or a list that
was made there, was freed, and came out of the interpreter's free list in the run of a task that
keeps it: ``tracemalloc`` knows where memory was taken, and not who has it now.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import replace

from otel_celery_memory.ipc.records import SHARED_NAME, Site, SitesWindow, TaskFinished, WindowKind
from otel_celery_memory.reporter.state.totals import Kept
from otel_celery_memory.reporter.symbolizer import CodePlace
from otel_celery_memory.reporter.window_totals import (
    HeapGrowth,
    KeyOf,
    SiteKey,
    SiteMean,
    WindowTotals,
    place_of,
    site_of,
)
from otel_celery_memory.telemetry.events import RankedSite
from otel_celery_memory.telemetry.metrics import BoundedNames

_NAMES_MAX = 1_000
_DETAILS_MAX = 10_000

_LEAST_BLOCKS_A_RUN = 0.05
"""A site that grows more slowly is not told: what happens now and then may be that often."""
_LEAST_BLOCKS_OF_NOBODY = 0.25
"""The same of code that belongs to no task: no counters speak for it, and Celery keeps something of
the last run and of the next one."""
_ONCE_BLOCKS = 2.5
"""A window may show so many blocks at a site once: what it keeps of the last run of each task, of
the next one's arguments. A site has grown by more, and by one more. Of windows of one run each, as
they are where tracing is always on, all show it once together: each replaces the one before."""

_HELD_FACTOR, _HELD_LEAST_BYTES, _HELD_LEAST_BLOCKS = 10.0, 4 << 10, 0.9
"""Where a run keeps so many times what the lines of its task show, and so many bytes, its objects
hold memory that is not traced: those of the first line, if a run leaves so many blocks there."""
_RUNS_KNOWN = 10
"""Where so many runs of some task keep nothing, the code that all tasks run keeps nothing."""
_EXPLAINED_SHARE, _LEAST_BLOCKS_EXPLAINED = 0.25, 2.0
"""A line of the user's that explains such a share of what a run of its task keeps by the counters
is told of so few blocks: a leak in one run of a hundred is in few windows."""
_LEAST_BLOCKS_ALIKE, _ALIKE_FACTOR, _ALIKE_LEAST_BYTES = 1.0, 2.0, 4 << 10
"""And of one, if it is about as large as what a sampled run of its task has kept."""
_RARE_FACTOR = 3.0
"""What no one of n runs did happens in 3/n of them at most (the rule of three, at 95 %)."""
_WINDOWS_KNOWN = 4
"""A site that is in most of so many windows is of no few runs: what they have is churn."""
_OWN_SHARE = 0.02
"""Of the largest rate: a line of the user's that grows so fast comes before those of libraries."""
_CLAIM_FACTOR = 2.0
"""Claims within this factor of the counters stay: those count a small block as so many bytes."""


class SiteTotals:
    """Adds up windows and sites, and ranks them."""

    def __init__(
        self,
        describe: Callable[[str, int], CodePlace],
        top: int,
        kept: Callable[[str], Kept | None] = lambda task: None,
        warms_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """``kept`` gives what a run of a task keeps by the counters, if that is known; without a
        name, of the task that keeps least. ``warms_up``: whether what grows now may fill caches.
        """
        self._describe = describe
        self._top = top
        self._kept = kept
        self._of_library: set[tuple[str, int]] = set()
        """Lines of stacks without a line of the user's."""
        self._names = BoundedNames(_NAMES_MAX)
        self._warms_up = warms_up
        self._runs: Counter[str] = Counter()
        self._whole, self._first, self._partial = WindowTotals(), WindowTotals(), WindowTotals()
        self._early = WindowTotals()
        """Windows of complete runs from the time in which caches were filled: they count for tasks
        that keep something by the counters since then."""
        self._grown = HeapGrowth()
        self._details: OrderedDict[SiteKey, tuple[str, str]] = OrderedDict()
        self._totals_of_pid: dict[int, WindowTotals] = {}
        self._emitted_bytes: dict[tuple[WindowKind, SiteKey], int] = {}
        self.places: list[RankedSite] = []
        """The last ranking by line, with all stacks of a line added up."""

    def finished(self, record: TaskFinished) -> None:
        """Counts a run, traced or not: the rate needs how often a task runs."""
        self._runs[self._names.bounded(record.task)] += 1

    def window(self, record: SitesWindow) -> None:
        """Begins a window; its sites follow."""
        if record.kind == WindowKind.PROCESS:
            self._grown.window(record)
            return
        task = self._names.bounded(record.task)
        totals = self._totals(record, task)
        if totals is not None:
            self._totals_of_pid[record.pid] = totals
            totals.window(task, record.runs)

    def site(self, record: Site) -> None:
        """Adds what the window found at one site."""
        task = self._names.bounded(record.task)
        self._details[task, record.path, record.line, record.via] = (record.stack, record.where)
        if len(self._details) > _DETAILS_MAX:
            self._details.popitem(last=False)
        line = (record.path, record.line)
        if not record.of_library:
            self._of_library.discard(line)
        elif len(self._of_library) < _DETAILS_MAX:
            self._of_library.add(line)
        if record.kind == WindowKind.PROCESS:
            self._grown.site(task, record)
        elif (
            record.kind in (WindowKind.COMPLETE, WindowKind.FIRST_RUN, WindowKind.PARTIAL)
            and record.pid in self._totals_of_pid
        ):
            self._totals_of_pid[record.pid].site(task, record)

    def rank(self, interval_s: float) -> list[RankedSite]:
        """At most ``top`` sites that grow fastest; begins a new interval."""
        found = self.peek(interval_s)
        self.places = self.peek(interval_s, place_of)
        self._emitted_bytes = {
            (site.kind, (site.task, site.path, site.line, site.via)): site.size_bytes
            for site in (*self.places, *found)
        }
        for totals in (self._whole, self._early, self._first, self._partial):
            totals.next_interval()
        self._runs.clear()
        return found

    def peek(self, interval_s: float, key_of: KeyOf = site_of) -> list[RankedSite]:
        """The ranking as it is now, ``interval_s`` after the last call of `rank`; changes nothing.

        With `place_of`, all stacks of a line are added up.
        """
        seen = self._whole.tasks() | self._early.tasks()
        first = {k: m for k, m in self._first.means(key_of).items() if k[0] not in seen}
        grows = {task for task in self._early.tasks() if self._keeps_something(task)}
        whole = self._within(self._whole.means(key_of, self._early.of(grows)))
        whole |= self._with_what_is_held(whole)
        left_by_runs = [] if self._warms_up() else self._by_rate(whole, interval_s)
        others = (
            self._by_growth(interval_s, key_of)
            + self._by_size(WindowKind.FIRST_RUN, self._within(first))
            + self._by_size(WindowKind.PARTIAL, self._within(self._partial.means(key_of)))
        )
        for_runs = self._top - min(len(others), self._top // 3)
        found = (left_by_runs[:for_runs] + others)[: self._top]
        return [self._described(site, rank) for rank, site in enumerate(found, start=1)]

    def reset(self) -> None:
        """Removes everything, the last ranking included."""
        for totals in (self._whole, self._early, self._first, self._partial, self._grown):
            totals.clear()
        for kept in (self._runs, self._details, self._of_library, self._totals_of_pid):
            kept.clear()
        self._emitted_bytes = {}
        self.places = []

    def process_gone(self, pid: int) -> None:
        """Removes what grew in a process that has ended."""
        self._grown.process_gone(pid)
        self._totals_of_pid.pop(pid, None)

    def _totals(self, record: SitesWindow, task: str) -> WindowTotals | None:
        if record.kind == WindowKind.PARTIAL:
            return self._partial
        if record.kind == WindowKind.FIRST_RUN:
            return self._first
        if record.kind != WindowKind.COMPLETE:
            return None
        return self._early if self._warms_up() else self._whole

    def _by_rate(self, means: dict[SiteKey, SiteMean], interval_s: float) -> list[RankedSite]:
        found = []
        kept_by = {task: self._kept(task) for task in {key[0] for key in means if key[0]}}
        for key, mean in means.items():
            # The run of a window that closed in this interval may have ended before it.
            runs = max(self._runs[key[0]] or self._all_runs(key[0]), self._whole.fresh(key[0]))
            kept = kept_by.get(key[0])
            size_bytes = mean.steady_bytes
            if not size_bytes and self._is_as_a_sample(key, mean, kept):
                size_bytes = mean.size_bytes
            rate = size_bytes * runs * 60 / interval_s
            least_blocks = self._least_blocks(key, mean, kept)
            if rate > 0 and mean.blocks * mean.runs >= least_blocks:
                found.append(self._ranked(WindowKind.COMPLETE, key, mean, round(rate)))
        return self._own_first(found)

    def _least_blocks(self, key: SiteKey, mean: SiteMean, kept: Kept | None) -> float:
        """Of so many blocks, in all windows, a site is told that grows in them."""
        if kept is not None and mean.is_rare and not self._is_of_library(*key[1:3]):
            known_bytes = kept.bytes_per_run or 0.0
            if 0 < _EXPLAINED_SHARE * known_bytes <= mean.steady_bytes:
                return _LEAST_BLOCKS_EXPLAINED
        if self._is_as_a_sample(key, mean, kept):
            return _LEAST_BLOCKS_ALIKE
        times = mean.windows if mean.runs > mean.windows else 1
        a_run = _LEAST_BLOCKS_A_RUN if key[0] else _LEAST_BLOCKS_OF_NOBODY
        return max(a_run * mean.runs, _ONCE_BLOCKS * times + 1)

    def _is_as_a_sample(self, key: SiteKey, mean: SiteMean, kept: Kept | None) -> bool:
        """Whether a line of the user's that is in few windows has in them what a run has kept."""
        if kept is None or not (kept.bytes_per_run or 0.0) > 0 or not mean.is_rare:
            return False
        if self._is_of_library(*key[1:3]) or kept.largest_bytes < _ALIKE_LEAST_BYTES:
            return False
        in_a_window_bytes = mean.size_bytes * mean.runs / mean.found_in
        return 1 / _ALIKE_FACTOR <= in_a_window_bytes / kept.largest_bytes <= _ALIKE_FACTOR

    def _own_first(self, found: list[RankedSite]) -> list[RankedSite]:
        """The fastest first; but of a task, a line of the user's before those of stacks that end
        before his code, unless it is far slower. All that went through a line of his is its. What a
        receiver has called comes before those, too: with all tasks, it looks like each one's.
        """
        lines: Counter[tuple[str, str, int]] = Counter()
        own: dict[str, int] = {}
        for site in found:
            if not self._is_of_library(site.path, site.line):
                line = (site.task, site.path, site.line)
                lines[line] += site.rate_bytes_per_minute or 0
                own[site.task] = max(own.get(site.task, 0), lines[line])

        def rank(site: RankedSite) -> tuple[int, bool, int, str]:
            rate = site.rate_bytes_per_minute or 0
            of_library = self._is_of_library(site.path, site.line)
            of_task = max(own.get(site.task, 0), own.get("", 0))
            if not of_library:
                of_all = lines[site.task, site.path, site.line]
            else:
                of_all = min(rate, of_task) if of_task >= _OWN_SHARE * rate else rate
            return -of_all, of_library, -rate, site.path

        return sorted(found, key=rank)

    def _is_of_library(self, path: str, line: int) -> bool:
        return (path, line) in self._of_library

    def _within(self, means: dict[SiteKey, SiteMean]) -> dict[SiteKey, SiteMean]:
        """Sites of each task within what its runs keep by the counters."""
        claims: Counter[str] = Counter()
        counted: Counter[str] = Counter()
        for key, mean in means.items():
            claims[key[0]] += max(round(mean.steady_bytes), 0)
            counted[key[0]] += max(round(mean.counted_bytes), 0)
        kept_by = {task: self._kept(task) for task in claims}
        found = {}
        for key, mean in means.items():
            kept = kept_by[key[0]]
            if kept is None and self._is_of_all_runs(key):
                continue
            if kept is None or self._is_beyond_counters(key, mean, kept):
                found[key] = mean
                continue
            if not key[0] and kept.shows_nothing and kept.runs >= _RUNS_KNOWN:
                continue
            claim = claims[key[0]] / max(kept.most_bytes, 1.0)
            if kept.contradicts(counted[key[0]]) and not _is_of_few_runs(mean, kept):
                continue
            found[key] = mean if claim <= _CLAIM_FACTOR else mean.scaled(1 / claim)
        return found

    def _with_what_is_held(self, means: dict[SiteKey, SiteMean]) -> dict[SiteKey, SiteMean]:
        """First lines of tasks whose objects hold memory that is not traced, and that memory."""
        shown: Counter[str] = Counter()
        first: dict[str, SiteKey] = {}
        for key, mean in means.items():
            task, path, line, _ = key
            shown[task] += max(round(mean.steady_bytes), 0)
            if not task or self._is_of_library(path, line) or mean.blocks < _HELD_LEAST_BLOCKS:
                continue
            if task not in first or mean.steady_bytes > means[first[task]].steady_bytes:
                first[task] = key
        found = {}
        for task, key in first.items():
            kept = self._kept(task)
            if kept is None or kept.runs < _RUNS_KNOWN:
                continue
            kept_bytes = kept.bytes_per_run or 0.0
            if kept_bytes >= max(_HELD_FACTOR * shown[task], _HELD_LEAST_BYTES):
                found[key] = means[key].with_more(kept_bytes - shown[task])
        return found

    def _keeps_something(self, task: str) -> bool:
        kept = self._kept(task)
        return kept is not None and (kept.bytes_per_run or 0.0) > 0

    def _is_of_all_runs(self, key: SiteKey) -> bool:
        """Whether it is code of Celery or another library that all runs have in common.

        Where they overlap, and no counters speak for them, it is of those in flight at the looks.
        """
        task, path, line, _ = key
        where = self._details.get(key, ("", ""))[1]
        return not task and not where and self._is_of_library(path, line)

    def _is_beyond_counters(self, key: SiteKey, mean: SiteMean, kept: Kept) -> bool:
        """Whether the counters cannot contradict it: it is too small, or a receiver of the user's,
        which may not be called for each task.
        """
        task, path, line, _ = key
        if not task:
            where = self._details.get(key, ("", ""))[1]
            return where == "receiver" or not self._is_of_library(path, line)
        growth_bytes = kept.growth_bytes
        return mean.is_small and (growth_bytes is None or mean.steady_bytes <= growth_bytes)

    def _all_runs(self, task: str) -> int:
        """Of code that belongs to no task, all runs count."""
        return sum(self._runs.values()) if task in ("", SHARED_NAME) else 0

    def _by_growth(self, interval_s: float, key_of: KeyOf) -> list[RankedSite]:
        found = []
        for key, grown in self._grown.sums(key_of).items():
            change = grown.size_bytes - self._emitted_bytes.get((WindowKind.PROCESS, key), 0)
            rate = round(change * 60 / interval_s)
            found.append(self._ranked(WindowKind.PROCESS, key, grown, rate))
        return sorted(found, key=lambda site: (-site.size_bytes, site.path))

    def _by_size(self, kind: WindowKind, means: dict[SiteKey, SiteMean]) -> list[RankedSite]:
        found = [
            self._ranked(kind, key, mean, None)
            for key, mean in means.items()
            if mean.size_bytes > 0
        ]
        return sorted(found, key=lambda site: (-site.size_bytes, site.path))

    def _described(self, site: RankedSite, rank: int) -> RankedSite:
        place = self._describe(site.path, site.line)
        path, _, line = site.via.rpartition(":")
        via = self._describe(path, int(line)).name if path and line.isdecimal() else ""
        return replace(site, rank=rank, name=place.name, function=place.function, via=via)

    def _ranked(
        self, kind: WindowKind, key: SiteKey, mean: SiteMean, rate: int | None
    ) -> RankedSite:
        task, path, line, via = key
        stack, where = self._details.get(key, ("", ""))
        size_bytes = round(mean.size_bytes)
        return RankedSite(
            rank=0,
            name="",
            path=path,
            line=line,
            function=None,
            stack=stack,
            via=via,
            where=where,
            task=task,
            kind=kind,
            size_bytes=size_bytes,
            blocks=round(mean.blocks),
            size_change_bytes=size_bytes - self._emitted_bytes.get((kind, key), 0),
            runs=mean.runs,
            rate_bytes_per_minute=rate,
            of_library=self._is_of_library(path, line),
        )


def _is_of_few_runs(mean: SiteMean, kept: Kept) -> bool:
    """Whether it may grow in so few runs that no sampled one is among them."""
    is_seen_often = mean.windows >= _WINDOWS_KNOWN and not mean.is_rare
    return mean.blocks < _RARE_FACTOR / kept.runs and not is_seen_often
