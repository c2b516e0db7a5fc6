"""What windows of allocation tracing have found lately at each site, added up by task and line."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field, replace

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import Site, SitesWindow
from otel_celery_memory.probes.allocators import SMALL_BLOCK_BYTES, SMALL_BLOCK_MAX_BYTES

INTERVALS_KEPT = 10
_SITES_MAX = 2_000
_PROCESSES_MAX = 512
_SMALL_CLAIM_BYTES = 256
"""What the counters may miss in a run."""

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


def counted_bytes(size_bytes: float, blocks: float) -> float:
    """As how many bytes memory of so many counts, in so many blocks: the counters know of a small
    block that it is there, and of a large one what it has."""
    return (
        blocks * SMALL_BLOCK_BYTES if size_bytes <= blocks * SMALL_BLOCK_MAX_BYTES else size_bytes
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
    def counted_bytes(self) -> float:
        """What the counters would have of the steady part."""
        share = self.steady_bytes / self.size_bytes if self.size_bytes else 0.0
        return counted_bytes(self.steady_bytes, self.blocks * share)

    @property
    def is_small(self) -> bool:
        """Whether it is so little, in small blocks, that the counters may miss it."""
        return (
            self.steady_bytes <= _SMALL_CLAIM_BYTES
            and self.size_bytes <= _SMALL_CLAIM_BYTES * self.blocks
        )

    def with_more(self, size_bytes: float) -> SiteMean:
        """So many bytes more of it a run."""
        return replace(
            self,
            size_bytes=self.size_bytes + size_bytes,
            steady_bytes=self.steady_bytes + size_bytes,
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
