"""What traced runs left alive, added up over children and ranked at each interval. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from otel_celery_memory import conventions as c
from otel_celery_memory.records import Site, SitesWindow, TaskFinished
from otel_celery_memory.telemetry.events import RankedSite
from otel_celery_memory.telemetry.metrics import BoundedNames

_SITES_MAX = 5_000
_NAMES_MAX = 1_000

SiteKey = tuple[str, str, int, str]
"""Task, file, line, stack."""


@dataclass(frozen=True)
class CodePlace:
    """How a file and line are shown to people, and the function they lie in, if known."""

    name: str
    function: str | None


class SiteTotals:
    """Bytes and blocks by task and site since the last ranking."""

    def __init__(self, describe: Callable[[str, int], CodePlace], top: int) -> None:
        self._describe = describe
        self._top = top
        self._names = BoundedNames(_NAMES_MAX)
        self._runs: Counter[str] = Counter()
        self._traced_runs: Counter[str] = Counter()
        self._size_bytes: Counter[SiteKey] = Counter()
        self._blocks: Counter[SiteKey] = Counter()
        self._size_before: dict[SiteKey, int] = {}

    def finished(self, record: TaskFinished) -> None:
        """Count a run, traced or not: the rate needs how often a task runs."""
        self._runs[self._names.bounded(record.task)] += 1

    def window(self, record: SitesWindow) -> None:
        """Count a traced run."""
        self._traced_runs[self._names.bounded(record.task)] += 1

    def site(self, record: Site) -> None:
        """Add what one traced run left alive at one site."""
        task = self._names.bounded(record.task)
        key = (task, record.path, record.line, record.stack)
        if key not in self._size_bytes and len(self._size_bytes) >= _SITES_MAX:
            key = (task, c.OTHER, 0, "")
        self._size_bytes[key] += record.size_bytes
        self._blocks[key] += record.blocks

    def rank(self, interval_s: float) -> list[RankedSite]:
        """The sites that grow fastest in this interval; a new interval begins."""
        rates = {
            key: size / self._traced_runs[key[0]] * self._all_runs(key[0]) * 60 / interval_s
            for key, size in self._size_bytes.items()
            if size > 0 and self._traced_runs[key[0]]
        }
        best = sorted(rates, key=lambda key: (-rates[key], key))[: self._top]
        ranked = [self._ranked(rank, key, rates[key]) for rank, key in enumerate(best, start=1)]
        means = {key: self._mean(key) for key in rates}
        self._size_before = means
        for counter in (self._runs, self._traced_runs, self._size_bytes, self._blocks):
            counter.clear()
        return ranked

    def forget(self) -> None:
        """Begin anew, as if nothing had been told."""
        self._size_before = {}
        for counter in (self._runs, self._traced_runs, self._size_bytes, self._blocks):
            counter.clear()

    def _all_runs(self, task: str) -> int:
        """Runs in this interval; a window that closed in it may be of a run before it."""
        return max(self._runs[task], self._traced_runs[task])

    def _mean(self, key: SiteKey) -> int:
        return round(self._size_bytes[key] / self._traced_runs[key[0]])

    def _ranked(self, rank: int, key: SiteKey, rate: float) -> RankedSite:
        task, path, line, stack = key
        runs = self._traced_runs[task]
        place = self._describe(path, line)
        size_bytes = self._mean(key)
        return RankedSite(
            rank=rank,
            name=place.name,
            path=path,
            line=line,
            function=place.function,
            stack=stack,
            task=task,
            size_bytes=size_bytes,
            blocks=round(self._blocks[key] / runs),
            size_change_bytes=size_bytes - self._size_before.get(key, 0),
            runs=runs,
            rate_bytes_per_minute=round(rate),
        )
