"""Where a task that leaks allocates what stays, and what holds it: seen in some runs more."""

from __future__ import annotations

import gc
import heapq
import time
import tracemalloc
from collections.abc import Callable

from otel_celery_memory.ipc.records import TypeGrown
from otel_celery_memory.leaks.conclusion import FoundSite
from otel_celery_memory.leaks.verdict import Holder, Place
from otel_celery_memory.probes.objects import (
    LEAST_LENGTH,
    HolderSearch,
    count_by_type,
    grown_containers,
    ids_of,
    lengths,
    live_objects,
    module_namespaces,
    new_objects,
)
from otel_celery_memory.probes.sites import (
    SiteFilter,
    growing_throughout,
    growth,
    live_sites,
    owned_sites,
)
from otel_celery_memory.reporter.holders import holder_of
from otel_celery_memory.reporter.symbolizer import Symbolizer

_CENSUS_RUNS = LEAST_LENGTH + 20
"""A container of text or numbers is seen to grow by so many entries."""
_TYPES_MAX, _CONTAINERS_MAX = 8, 4
TRACED_RUNS = 50
_TRACED_WARM_UP, _TRACED_RUNS = 10, 20
"""Of each of two parts: what stays grows in both."""
_FRAMES = 25
_SITES_MAX = 10
_OURS = "otel_celery_memory."


def find_holder(run: Callable[[], object], until_s: float) -> Holder | None:
    """What holds the objects that multiply in some runs; ``None`` where time was up before."""
    gc.collect()
    before = count_by_type(gc.get_objects())
    old = ids_of(gc.get_objects())
    sizes = lengths(live_objects())
    for _ in range(_CENSUS_RUNS):
        if time.monotonic() >= until_s:
            return None
        run()
    gc.collect()
    objects = live_objects()
    now = count_by_type(gc.get_objects())
    grown = {kind: now[kind] - before.get(kind, 0) for kind in now}
    most = heapq.nlargest(_TYPES_MAX, grown, key=grown.__getitem__)
    least = _CENSUS_RUNS // 2
    enough = {kind: grown[kind] for kind in most if grown[kind] >= least}
    found = [row for row in new_objects(objects, now, enough, old) if row.ids]
    ours = frozenset(map(id, (before, now, grown, sizes)))
    found += grown_containers(objects, sizes, lengths(objects), _CONTAINERS_MAX, ours)
    known: dict[int, str] = {}
    rows = []
    for row in found:
        if row.type_name.startswith(_OURS):
            continue
        search = HolderSearch(row.ids, known)
        search.climb(objects, module_namespaces(), lambda: time.monotonic() < until_s)
        holder, alike = search.chain()
        rows.append(
            TypeGrown(
                *(0, 0, _CENSUS_RUNS, row.objects, row.growth),
                *(search.sampled, alike, row.type_name, holder),
            )
        )
    return holder_of(rows, _CENSUS_RUNS)


def find_sites(
    run: Callable[[], object], until_s: float, source: str
) -> tuple[FoundSite, ...] | None:
    """The lines that leave memory behind in each of two parts, the largest first.

    Allocations are traced from then on.

    ``source`` is the file of the task: the package that it is in is the user's own. ``None`` where
    allocations are traced already, or time was up before.
    """
    if tracemalloc.is_tracing():
        return None
    reads = []
    # Not stopped: the process ends soon, and to stop may crash it (gh-128679).
    tracemalloc.start(_FRAMES)
    # Called from one line: it is in each stack that is compared.
    for runs in (_TRACED_WARM_UP, _TRACED_RUNS, _TRACED_RUNS):
        if not _ran(run, runs, until_s):
            return None
        reads.append(live_sites())
    first, middle, last = reads
    chosen = SiteFilter()
    chosen.own_package(source)
    changes = growing_throughout(growth(first, middle), growth(middle, last), 0.5)
    describe = Symbolizer().describe
    sites = []
    for site in owned_sites(changes, chosen)[:_SITES_MAX]:
        place = describe(site.path, site.line)
        via = ""
        if site.via:
            path, _, line = site.via.rpartition(":")
            via = describe(path, int(line)).name
        sites.append(
            FoundSite(
                Place(place.name, site.path, site.line, place.function, via, 1.0),
                "task",
                site.size_bytes / (2 * _TRACED_RUNS),
            )
        )
    return tuple(sites)


def _ran(run: Callable[[], object], runs: int, until_s: float) -> bool:
    """Runs so often, unless time is up; then collects what is garbage."""
    for _ in range(runs):
        if time.monotonic() >= until_s:
            return False
        run()
    gc.collect()
    return True
