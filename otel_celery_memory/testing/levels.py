"""The levels of this process between two runs, kept where they do not count themselves."""

from __future__ import annotations

import contextlib
import gc
from array import array
from collections.abc import Mapping, Sequence

import psutil

from otel_celery_memory.leaks.resource import Resource
from otel_celery_memory.probes.allocators import (
    SMALL_BLOCK_BYTES,
    level_caches,
    malloc_in_use,
    open_files_in_use,
    read_heap,
    threads_in_use,
)
from otel_celery_memory.probes.own_memory import open_process_probe

_UNKNOWN = -(1 << 62)
_ALIKE_SHARE = 0.1
_READ = (
    Resource.HEAP,
    Resource.OTHER,
    Resource.OPEN_FILES,
    Resource.THREADS,
    Resource.DESCENDANTS,
)


class Levels:
    """Reads of one process, so many at most."""

    def __init__(self, most: int) -> None:
        # All of it now: what is kept while runs are counted would count, too.
        self._read = {each: array("q", [_UNKNOWN] * most) for each in _READ}
        self._reads = 0
        self._process = psutil.Process()
        self._memory = open_process_probe(peaks=False)
        self._malloc = malloc_in_use()

    def read(self) -> None:
        """Collects garbage, where the task has not disabled that, and reads all levels."""
        at, self._reads = self._reads, self._reads + 1
        self._read[Resource.DESCENDANTS][at] = self._descendants_bytes()
        if gc.isenabled():
            gc.collect()
        for resource, count in (
            (Resource.OPEN_FILES, open_files_in_use()),
            (Resource.THREADS, threads_in_use()),
        ):
            self._read[resource][at] = _UNKNOWN if count is None else count
        level_caches()
        heap = read_heap()
        in_use = 0 if self._malloc is None else self._malloc()
        if in_use is None:
            return
        self._read[Resource.HEAP][at] = in_use + heap.blocks * SMALL_BLOCK_BYTES
        used, free = heap.malloc_used_bytes, heap.malloc_free_bytes
        # Only where the counter is that of the malloc which this process really has.
        if used and free is not None and abs(in_use - used) <= _ALIKE_SHARE * used:
            # By its changes alone: of what was there at the fork the allocators know more than
            # is resident here.
            accounted = heap.blocks * SMALL_BLOCK_BYTES + used + free
            self._read[Resource.OTHER][at] = self._memory.rss_bytes() - accounted

    def series(self) -> Mapping[Resource, Sequence[float]]:
        """All that was read, in order; without resources that are not known here."""
        return {
            resource: list(values[: self._reads])
            for resource, values in self._read.items()
            if _UNKNOWN not in values[: self._reads]
        }

    def _descendants_bytes(self) -> int:
        total = 0
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += child.memory_info().rss
        return total
