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

Code of Celery or another library that belongs to no task runs with all of them, so it keeps no more
than the task does that keeps least. What a window shows of it beyond that is a dict or a list that
was made there, was freed, and came out of the interpreter's free list in the run of a task that
keeps it: ``tracemalloc`` knows where memory was taken, and not who has it now.

The `Symbolizer` gives a line a short stable path and the function around it. ``tracemalloc`` knows
files and lines only. The function is read from the source here and not in the worker, where it
would cost the tasks time.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import SHARED_NAME, Site, SitesWindow, TaskFinished, WindowKind
from otel_celery_memory.reporter.state.totals import Kept
from otel_celery_memory.telemetry.events import RankedSite
from otel_celery_memory.telemetry.metrics import BoundedNames

INTERVALS_KEPT = 10
_SITES_MAX = 2_000
_PROCESSES_MAX = 512
_NAMES_MAX = 1_000
_DETAILS_MAX = 10_000
_SOURCE_MAX_BYTES = 2_000_000

_LEAST_BLOCKS_A_RUN = 0.05
"""A site that grows more slowly is not told: what happens now and then may be that often."""
_LEAST_BLOCKS_OF_NOBODY = 0.25
"""The same of code that belongs to no task: no counters speak for it, and Celery keeps something of
the last run and of the next one."""
_ONCE_BLOCKS = 2.5
"""A window may show so many blocks at a site once: what it keeps of the last run of each task, of
the next one's arguments. A site has grown by more, and by one more. Of windows of one run each, as
they are where tracing is always on, all show it once together: each replaces the one before."""

_RUNS_KNOWN = 10
"""Where so many runs of some task keep nothing, the code that all tasks run keeps nothing."""
_EXPLAINED_SHARE, _LEAST_BLOCKS_EXPLAINED = 0.25, 2.0
"""A line of the user's that explains such a share of what a run of its task keeps by the counters
is told of so few blocks: a leak in one run of a hundred is in few windows."""
_RARE_FACTOR = 3.0
"""What no one of n runs did happens in 3/n of them at most (the rule of three, at 95 %)."""
_SMALL_CLAIM_BYTES = 256
"""What the counters may miss in a run: a tuple that came out of a free list."""
_OWN_SHARE = 0.05
"""Of the largest rate: a line of the user's that grows so fast comes before those of libraries."""
_CLAIM_FACTOR = 2.0
"""Claims within this factor of the counters stay: those count a small block as so many bytes."""

SiteKey = tuple[str, str, int, str]
"""Task, file, line, the line of a library that it went through (``path:line``)."""
KeyOf = Callable[[SiteKey], SiteKey]


def site_of(site: SiteKey) -> SiteKey:
    """The site itself: each line of a library that it went through is a site of its own."""
    return site


def place_of(site: SiteKey) -> SiteKey:
    """The site whatever it went through: a line is one row."""
    return (*site[:3], "")


@dataclass
class _Interval:
    windows: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[SiteKey] = field(default_factory=Counter)
    blocks: Counter[SiteKey] = field(default_factory=Counter)
    largest_bytes: dict[SiteKey, int] = field(default_factory=dict)
    found_in: Counter[SiteKey] = field(default_factory=Counter)
    """In how many windows a site was."""

    def of(self, tasks: Set[str]) -> _Interval:
        """The part of these tasks."""
        return _Interval(
            Counter({task: n for task, n in self.windows.items() if task in tasks}),
            Counter({task: n for task, n in self.runs.items() if task in tasks}),
            Counter({key: n for key, n in self.size_bytes.items() if key[0] in tasks}),
            Counter({key: n for key, n in self.blocks.items() if key[0] in tasks}),
            {key: n for key, n in self.largest_bytes.items() if key[0] in tasks},
            Counter({key: n for key, n in self.found_in.items() if key[0] in tasks}),
        )


@dataclass(frozen=True)
class SiteMean:
    """A site's means over the traced runs of its task.

    ``size_bytes`` and ``blocks`` are means per run. ``steady_bytes`` is the mean without the
    largest window if there are three or more: what happened once is no leak.
    """

    size_bytes: float
    blocks: float
    steady_bytes: float
    runs: int
    windows: int = 1
    found_in: int = 1
    """In how many of the windows the site was."""

    @property
    def is_rare(self) -> bool:
        """Whether it is in few windows: what a window shows once is in all of them."""
        return 2 * self.found_in <= self.windows

    @property
    def is_small(self) -> bool:
        """Whether it is so little, in small blocks, that the counters may miss it."""
        return (
            self.steady_bytes <= _SMALL_CLAIM_BYTES
            and self.size_bytes <= _SMALL_CLAIM_BYTES * self.blocks
        )

    def scaled(self, share: float) -> SiteMean:
        """So much of it."""
        return replace(
            self, size_bytes=self.size_bytes * share, steady_bytes=self.steady_bytes * share
        )


class WindowTotals:
    """Sums over the windows of the last `INTERVALS_KEPT` intervals."""

    def __init__(self) -> None:
        self._intervals: deque[_Interval] = deque([_Interval()], maxlen=INTERVALS_KEPT)

    def window(self, task: str, runs: int) -> None:
        """Counts a window of so many runs of this task."""
        self._intervals[-1].windows[task] += 1
        self._intervals[-1].runs[task] += max(runs, 1)

    def site(self, task: str, record: Site) -> None:
        """Adds what a window found at one site."""
        now = self._intervals[-1]
        key = (task, record.path, record.line, record.via)
        if key not in now.size_bytes and len(now.size_bytes) >= _SITES_MAX:
            key = (task, c.OTHER, 0, "")
        now.size_bytes[key] += record.size_bytes
        now.blocks[key] += record.blocks
        now.largest_bytes[key] = max(now.largest_bytes.get(key, 0), record.size_bytes)
        now.found_in[key] += 1

    def fresh(self, task: str) -> int:
        """Traced runs of this task in the current interval."""
        return self._intervals[-1].runs[task]

    def tasks(self) -> set[str]:
        """Tasks with windows, with or without sites."""
        return {task for interval in self._intervals for task in interval.windows}

    def of(self, tasks: Set[str]) -> list[_Interval]:
        """What it has of these tasks."""
        return [interval.of(tasks) for interval in self._intervals] if tasks else []

    def means(
        self, key_of: KeyOf = site_of, more: Iterable[_Interval] = ()
    ) -> dict[SiteKey, SiteMean]:
        """Means of each site, ``more`` included; sites with the same ``key_of`` are added up."""
        windows: Counter[str] = Counter()
        runs: Counter[str] = Counter()
        size_bytes: Counter[SiteKey] = Counter()
        blocks: Counter[SiteKey] = Counter()
        largest_bytes: dict[SiteKey, int] = {}
        found_in: Counter[SiteKey] = Counter()
        for interval in (*more, *self._intervals):
            windows.update(interval.windows)
            runs.update(interval.runs)
            for key, size in interval.size_bytes.items():
                site = key_of(key)
                size_bytes[site] += size
                blocks[site] += interval.blocks[key]
                found_in[site] += interval.found_in[key]
                largest = interval.largest_bytes[key]
                largest_bytes[site] = max(largest_bytes.get(site, 0), largest)
        return {
            key: replace(
                _mean(size, blocks[key], largest_bytes[key], windows[key[0]], runs[key[0]]),
                found_in=found_in[key],
            )
            for key, size in size_bytes.items()
            if runs[key[0]]
        }

    def next_interval(self) -> None:
        """Begins the next interval."""
        self._intervals.append(_Interval())

    def clear(self) -> None:
        """Removes everything."""
        self._intervals.clear()
        self._intervals.append(_Interval())


def _mean(size_bytes: int, blocks: int, largest_bytes: int, windows: int, runs: int) -> SiteMean:
    mean = size_bytes / runs
    steady = mean
    if windows >= 3:
        # Windows are of about as many runs as one another.
        steady = (size_bytes - largest_bytes) / (runs * (windows - 1) / windows)
    return SiteMean(mean, blocks / runs, steady, runs, windows)


class HeapGrowth:
    """The last comparison of each process with its baseline; bounded, the oldest are dropped."""

    def __init__(self) -> None:
        self._sites: OrderedDict[int, dict[SiteKey, tuple[int, int]]] = OrderedDict()
        self._runs: dict[int, int] = {}

    def window(self, record: SitesWindow) -> None:
        """A process sends a new comparison; its sites follow."""
        self._sites[record.pid] = {}
        self._sites.move_to_end(record.pid)
        self._runs[record.pid] = record.runs
        if len(self._sites) > _PROCESSES_MAX:
            self._runs.pop(self._sites.popitem(last=False)[0], None)

    def site(self, task: str, record: Site) -> None:
        """Adds what grew at one site."""
        if record.pid in self._sites:
            key = (task, record.path, record.line, record.via)
            size_bytes, blocks = self._sites[record.pid].get(key, (0, 0))
            size_bytes, blocks = size_bytes + record.size_bytes, blocks + record.blocks
            self._sites[record.pid][key] = (size_bytes, blocks)

    def sums(self, key_of: KeyOf) -> dict[SiteKey, SiteMean]:
        """Growth of each site, summed over all processes; ``runs`` is the number of runs since.

        Sites with the same ``key_of`` are added up.
        """
        sizes: Counter[SiteKey] = Counter()
        blocks: Counter[SiteKey] = Counter()
        for sites in self._sites.values():
            for key, (size, count) in sites.items():
                sizes[key_of(key)] += size
                blocks[key_of(key)] += count
        runs = sum(self._runs.values())
        return {
            key: SiteMean(size, blocks[key], size, runs) for key, size in sizes.items() if size > 0
        }

    def process_gone(self, pid: int) -> None:
        """Removes what grew in a process that has ended."""
        self._sites.pop(pid, None)
        self._runs.pop(pid, None)

    def clear(self) -> None:
        """Removes everything."""
        self._sites.clear()
        self._runs.clear()


@dataclass(frozen=True)
class CodePlace:
    """The short name of a line, for people, and the function around it, if known."""

    name: str
    function: str | None


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
            rate = mean.steady_bytes * runs * 60 / interval_s
            least_blocks = self._least_blocks(key, mean, kept_by.get(key[0]))
            if rate > 0 and mean.blocks * mean.runs >= least_blocks:
                found.append(self._ranked(WindowKind.COMPLETE, key, mean, round(rate)))
        return self._own_first(found)

    def _least_blocks(self, key: SiteKey, mean: SiteMean, kept: Kept | None) -> float:
        """Of so many blocks, in all windows, a site is told that grows in them."""
        if kept is not None and mean.is_rare and not self._is_of_library(*key[1:3]):
            known_bytes = kept.bytes_per_run or 0.0
            if 0 < _EXPLAINED_SHARE * known_bytes <= mean.steady_bytes:
                return _LEAST_BLOCKS_EXPLAINED
        times = mean.windows if mean.runs > mean.windows else 1
        a_run = _LEAST_BLOCKS_A_RUN if key[0] else _LEAST_BLOCKS_OF_NOBODY
        return max(a_run * mean.runs, _ONCE_BLOCKS * times + 1)

    def _own_first(self, found: list[RankedSite]) -> list[RankedSite]:
        """The fastest first; but of a task, a line of the user's before those of stacks that end
        before his code, unless it is far slower.
        """
        own: dict[str, int] = {}
        for site in found:
            if not self._is_of_library(site.path, site.line):
                own[site.task] = max(own.get(site.task, 0), site.rate_bytes_per_minute or 0)

        def rank(site: RankedSite) -> tuple[int, bool, str]:
            rate = site.rate_bytes_per_minute or 0
            of_library = self._is_of_library(site.path, site.line)
            of_task = own.get(site.task, 0)
            if of_library and of_task >= _OWN_SHARE * rate:
                rate = min(rate, of_task)
            return -rate, of_library, site.path

        return sorted(found, key=rank)

    def _is_of_library(self, path: str, line: int) -> bool:
        return (path, line) in self._of_library

    def _within(self, means: dict[SiteKey, SiteMean]) -> dict[SiteKey, SiteMean]:
        """Sites of each task within what its runs keep by the counters."""
        claims: Counter[str] = Counter()
        for key, mean in means.items():
            claims[key[0]] += max(round(mean.steady_bytes), 0)
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
            if kept.contradicts(claims[key[0]]) and mean.blocks >= _RARE_FACTOR / kept.runs:
                continue
            found[key] = mean if claim <= _CLAIM_FACTOR else mean.scaled(1 / claim)
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
        )


class Symbolizer:
    """Names lines of code, with paths relative to the first of ``roots`` that contains them."""

    def __init__(self, roots: Sequence[str] | None = None) -> None:
        self._roots = default_roots() if roots is None else tuple(roots)

    def describe(self, path: str, line: int) -> CodePlace:
        """The short name of a line and the function around it."""
        return CodePlace(f"{self._short(path)}:{line}", function_at(path, line))

    def _short(self, path: str) -> str:
        for root in self._roots:
            if path.startswith(root):
                return path[len(root) :]
        return path


def default_roots() -> tuple[str, ...]:
    """The working directory, site-packages and the standard library, the longest path first.

    A virtual environment often lies inside the working directory.
    """
    paths = sysconfig.get_paths()
    roots = {str(Path.cwd()), paths["purelib"], paths["platlib"], paths["stdlib"]}
    return tuple(sorted((root.rstrip("/") + "/" for root in roots), key=len, reverse=True))


@lru_cache(maxsize=2_000)
def function_at(path: str, line: int) -> str | None:
    """Qualified name of the innermost function around a line; ``None`` if unknown."""
    found: str | None = None
    for first, last, name in _functions(path):
        if first <= line <= last:
            found = name
    return found


@lru_cache(maxsize=200)
def _functions(path: str) -> tuple[tuple[int, int, str], ...]:
    """(first line, last line, qualified name) of a file's functions, outer before inner."""
    try:
        source = Path(path)
        # Reading a pipe or a device could block.
        if not source.is_file() or source.stat().st_size > _SOURCE_MAX_BYTES:
            return ()
        with warnings.catch_warnings():
            # Warnings of the compiler about the user's code do not belong in our log.
            warnings.simplefilter("ignore")
            tree = ast.parse(source.read_bytes())
        found: list[tuple[int, int, str]] = []
        _collect(tree, "", found)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(found)


def _collect(node: ast.AST, prefix: str, found: list[tuple[int, int, str]]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = prefix + child.name
            found.append((child.lineno, child.end_lineno or child.lineno, name))
            _collect(child, f"{name}.<locals>.", found)
        elif isinstance(child, ast.ClassDef):
            _collect(child, f"{prefix}{child.name}.", found)
        else:
            _collect(child, prefix, found)
