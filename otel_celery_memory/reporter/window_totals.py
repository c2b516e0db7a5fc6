"""Bytes and blocks by task and site, added up over the windows of the last intervals. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import Site

INTERVALS_KEPT = 10
_SITES_MAX = 2_000

SiteKey = tuple[str, str, int, str]
"""Task, file, line, stack."""


KeyOf = Callable[[SiteKey], SiteKey]


def site_of(site: SiteKey) -> SiteKey:
    """The site itself: each stack is one of its own."""
    return site


def place_of(site: SiteKey) -> SiteKey:
    """The site without its stack: what a table shows of it that has no room for stacks."""
    return (*site[:3], "")


@dataclass
class _Interval:
    windows: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[SiteKey] = field(default_factory=Counter)
    blocks: Counter[SiteKey] = field(default_factory=Counter)
    largest_bytes: dict[SiteKey, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SiteMean:
    """What windows of a task show of one site.

    ``size_bytes`` and ``blocks`` are means of a window. ``steady_bytes`` is the mean without the
    largest of them, where there are three or more: what happened once is no leak.
    """

    size_bytes: float
    blocks: float
    steady_bytes: float
    windows: int


class WindowTotals:
    """The windows of the last `INTERVALS_KEPT` intervals; tasks that are rare are seen longer."""

    def __init__(self) -> None:
        self._intervals: deque[_Interval] = deque([_Interval()], maxlen=INTERVALS_KEPT)

    def window(self, task: str) -> None:
        """One more window of this task."""
        self._intervals[-1].windows[task] += 1

    def site(self, task: str, record: Site) -> None:
        """What a window found at one site."""
        now = self._intervals[-1]
        key = (task, record.path, record.line, record.stack)
        if key not in now.size_bytes and len(now.size_bytes) >= _SITES_MAX:
            key = (task, c.OTHER, 0, "")
        now.size_bytes[key] += record.size_bytes
        now.blocks[key] += record.blocks
        now.largest_bytes[key] = max(now.largest_bytes.get(key, 0), record.size_bytes)

    def fresh(self, task: str) -> int:
        """Windows of this task in the present interval."""
        return self._intervals[-1].windows[task]

    def tasks(self) -> set[str]:
        """Tasks of which there are windows, whatever these show."""
        return {task for interval in self._intervals for task in interval.windows}

    def means(self, key_of: KeyOf = site_of) -> dict[SiteKey, SiteMean]:
        """What there is of each site, over the windows of its task.

        Sites of which `key_of` says the same are one.
        """
        windows: Counter[str] = Counter()
        size_bytes: Counter[SiteKey] = Counter()
        blocks: Counter[SiteKey] = Counter()
        largest_bytes: dict[SiteKey, int] = {}
        for interval in self._intervals:
            windows.update(interval.windows)
            for key, size in interval.size_bytes.items():
                site = key_of(key)
                size_bytes[site] += size
                blocks[site] += interval.blocks[key]
                largest = interval.largest_bytes[key]
                largest_bytes[site] = max(largest_bytes.get(site, 0), largest)
        return {
            key: _mean(size, blocks[key], largest_bytes[key], windows[key[0]])
            for key, size in size_bytes.items()
            if windows[key[0]]
        }

    def turn(self) -> None:
        """An interval ends, the next begins."""
        self._intervals.append(_Interval())

    def clear(self) -> None:
        """Begin anew."""
        self._intervals.clear()
        self._intervals.append(_Interval())


def _mean(size_bytes: int, blocks: int, largest_bytes: int, windows: int) -> SiteMean:
    mean = size_bytes / windows
    steady = mean if windows < 3 else (size_bytes - largest_bytes) / (windows - 1)
    return SiteMean(mean, blocks / windows, steady, windows)
