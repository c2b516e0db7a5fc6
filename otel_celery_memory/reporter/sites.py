"""Which sites to tell of at each interval: what traced windows found, ranked. Pure.

First what whole runs leave alive, by how fast it grows; of tasks that were not traced twice in any
process, what their first traced runs left; then what grows in a process outside of runs; then what
was alive when a slice of a long run ended, which may still have been freed. A third of the places
is for these last three, where there are any: the many small things that whole runs leave must not
hide a large one that was seen in another way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from otel_celery_memory.ipc.records import Site, SitesWindow, TaskFinished, WindowKind
from otel_celery_memory.reporter.heap_growth import HeapGrowth
from otel_celery_memory.reporter.window_totals import (
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
_PAIRS_MAX = 10_000


@dataclass(frozen=True)
class CodePlace:
    """How a file and line are shown to people, and the function they lie in, if known."""

    name: str
    function: str | None


class SiteTotals:
    """Windows and sites since the last ranking, and what of the ones before is remembered."""

    def __init__(self, describe: Callable[[str, int], CodePlace], top: int) -> None:
        self._describe = describe
        self._top = top
        self._names = BoundedNames(_NAMES_MAX)
        self._runs: Counter[str] = Counter()
        self._whole, self._first, self._slices = WindowTotals(), WindowTotals(), WindowTotals()
        self._grown = HeapGrowth()
        self._met: dict[tuple[int, str], None] = {}
        self._into: dict[int, WindowTotals] = {}
        self._told_bytes: dict[tuple[WindowKind, SiteKey], int] = {}

    def finished(self, record: TaskFinished) -> None:
        """Count a run, traced or not: the rate needs how often a task runs."""
        self._runs[self._names.bounded(record.task)] += 1

    def window(self, record: SitesWindow) -> None:
        """A window's sites follow."""
        if record.kind == WindowKind.PROCESS:
            self._grown.window(record)
            return
        task = self._names.bounded(record.task)
        totals = self._totals(record, task)
        if totals is not None:
            self._into[record.pid] = totals
            totals.window(task)

    def site(self, record: Site) -> None:
        """What the window found at one site."""
        task = self._names.bounded(record.task)
        if record.kind == WindowKind.PROCESS:
            self._grown.site(task, record)
        elif record.kind in (WindowKind.RUN, WindowKind.SLICE) and record.pid in self._into:
            self._into[record.pid].site(task, record)

    def rank(self, interval_s: float) -> list[RankedSite]:
        """At most the `top` sites that grow fastest; a new interval begins."""
        found = self.peek(interval_s)
        self._told_bytes = {
            (site.kind, (site.task, site.path, site.line, site.stack)): site.size_bytes
            for site in (*self.peek(interval_s, place_of), *found)
        }
        for totals in (self._whole, self._first, self._slices):
            totals.turn()
        self._runs.clear()
        return found

    def peek(self, interval_s: float, key_of: KeyOf = site_of) -> list[RankedSite]:
        """What `rank` would tell now, `interval_s` after it was last called.

        With `place_of`, a line is one site whatever stacks called it.
        """
        seen = self._whole.tasks()
        first = {k: m for k, m in self._first.means(key_of).items() if k[0] not in seen}
        left_by_runs = self._by_rate(WindowKind.RUN, self._whole.means(key_of), interval_s)
        others = (
            self._by_rate(WindowKind.FIRST, first, interval_s)
            + self._by_growth(interval_s, key_of)
            + self._by_size(self._slices.means(key_of))
        )
        for_runs = self._top - min(len(others), self._top // 3)
        found = (left_by_runs[:for_runs] + others)[: self._top]
        return [self._described(site, rank) for rank, site in enumerate(found, start=1)]

    def forget(self) -> None:
        """Begin anew, as if nothing had been told."""
        for totals in (self._whole, self._first, self._slices, self._grown):
            totals.clear()
        for kept in (self._runs, self._met, self._into):
            kept.clear()
        self._told_bytes = {}

    def process_gone(self, pid: int) -> None:
        """A process is no more, and what had grown in it neither."""
        self._grown.process_gone(pid)
        self._into.pop(pid, None)

    def _totals(self, record: SitesWindow, task: str) -> WindowTotals | None:
        if record.kind == WindowKind.SLICE:
            return self._slices
        if record.kind != WindowKind.RUN:
            return None
        pair = (record.pid, task)
        if pair in self._met:
            return self._whole
        self._met[pair] = None
        if len(self._met) > _PAIRS_MAX:
            del self._met[next(iter(self._met))]
        return self._first

    def _by_rate(
        self, kind: WindowKind, means: dict[SiteKey, SiteMean], interval_s: float
    ) -> list[RankedSite]:
        found = []
        for key, mean in means.items():
            # A window that closed in this interval may be of a run before it.
            runs = max(self._runs[key[0]], self._whole.fresh(key[0]), self._first.fresh(key[0]))
            rate = mean.steady_bytes * runs * 60 / interval_s
            if rate > 0:
                found.append(self._ranked(kind, key, mean, round(rate)))
        return sorted(found, key=lambda site: (-(site.rate_bytes_per_minute or 0), site.path))

    def _by_growth(self, interval_s: float, key_of: KeyOf) -> list[RankedSite]:
        found = []
        for key, grown in self._grown.sums(key_of).items():
            change = grown.size_bytes - self._told_bytes.get((WindowKind.PROCESS, key), 0)
            rate = round(change * 60 / interval_s)
            found.append(self._ranked(WindowKind.PROCESS, key, grown, rate))
        return sorted(found, key=lambda site: (-site.size_bytes, site.path))

    def _by_size(self, means: dict[SiteKey, SiteMean]) -> list[RankedSite]:
        found = [
            self._ranked(WindowKind.SLICE, key, mean, None)
            for key, mean in means.items()
            if mean.size_bytes > 0
        ]
        return sorted(found, key=lambda site: (-site.size_bytes, site.path))

    def _described(self, site: RankedSite, rank: int) -> RankedSite:
        place = self._describe(site.path, site.line)
        return replace(site, rank=rank, name=place.name, function=place.function)

    def _ranked(
        self, kind: WindowKind, key: SiteKey, mean: SiteMean, rate: int | None
    ) -> RankedSite:
        task, path, line, stack = key
        size_bytes = round(mean.size_bytes)
        return RankedSite(
            rank=0,
            name="",
            path=path,
            line=line,
            function=None,
            stack=stack,
            task=task,
            kind=kind,
            size_bytes=size_bytes,
            blocks=round(mean.blocks),
            size_change_bytes=size_bytes - self._told_bytes.get((kind, key), 0),
            runs=mean.windows,
            rate_bytes_per_minute=rate,
        )
