"""What is alive in each process that was not when its baseline was taken. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict

from otel_celery_memory.ipc.records import Site, SitesWindow
from otel_celery_memory.reporter.window_totals import KeyOf, SiteKey, SiteMean

_PROCESSES_MAX = 512


class HeapGrowth:
    """The last comparison of each process with its baseline; beyond a bound the oldest go."""

    def __init__(self) -> None:
        self._sites: OrderedDict[int, dict[SiteKey, tuple[int, int]]] = OrderedDict()
        self._runs: dict[int, int] = {}

    def window(self, record: SitesWindow) -> None:
        """A process has compared anew; its sites follow."""
        self._sites[record.pid] = {}
        self._sites.move_to_end(record.pid)
        self._runs[record.pid] = record.runs
        if len(self._sites) > _PROCESSES_MAX:
            self._runs.pop(self._sites.popitem(last=False)[0], None)

    def site(self, task: str, record: Site) -> None:
        """What grew at one site."""
        if record.pid in self._sites:
            key = (task, record.path, record.line, record.stack)
            self._sites[record.pid][key] = (record.size_bytes, record.blocks)

    def sums(self, key_of: KeyOf) -> dict[SiteKey, SiteMean]:
        """Over all processes, what grew at each site.

        Sites of which `key_of` says the same are one. Sums and no means; ``windows`` is how many
        runs it took.
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
        """A process is no more, and what had grown in it neither."""
        self._sites.pop(pid, None)
        self._runs.pop(pid, None)

    def clear(self) -> None:
        """Begin anew."""
        self._sites.clear()
        self._runs.clear()
