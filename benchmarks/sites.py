"""How long reading a million live traces blocks a task's thread: `tracemalloc`'s way and ours.

`tracemalloc`'s way is ``take_snapshot().statistics("traceback")``. Ours is one reading that stops
tracing in the middle, and one that lets it go on, as with every task traced; each is compared with
an empty reading before it. Every measurement makes its own traces.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable

from otel_celery_memory.probes.sites import (
    NoCollections,
    SiteFilter,
    changed_sites,
    group_traces,
    live_sites,
    take_traces,
)

TRACES = 1_000_000
PLACES = 500
"""Lines that allocate; with 10 frames as many stacks."""
DEPTH = 30
"""Calls below each of them, as in a worker."""
ROUNDS = 3
BOUND = 0.1


def main() -> None:
    """Prints the table."""
    ways: dict[str, Callable[[], None]] = {
        "take_snapshot().statistics": _snapshot,
        "ours, tracing stopped": _ours_stopping,
        "ours, tracing on": _ours,
    }
    for frames in (1, 10):
        blocked: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, read in ways.items():
                blocked[way].append(_blocked_s(read, frames))
        print(f"{TRACES:,} live traces of {frames} frame(s): seconds blocked (median of {ROUNDS})")
        theirs = [
            statistics.median(each)
            for each in zip(*blocked["take_snapshot().statistics"], strict=True)
        ]
        for way, found in blocked.items():
            wall_s, cpu_s = (statistics.median(each) for each in zip(*found, strict=True))
            print(
                f"  {way:28} wall {wall_s:7.3f}  CPU {cpu_s:7.3f}"
                f"  ratio {wall_s / theirs[0]:.3f} {cpu_s / theirs[1]:.3f}"
                f"{f'   (bound {BOUND})' if way.startswith('ours') else ''}"
            )


def _blocked_s(read: Callable[[], None], frames: int) -> tuple[float, float]:
    """Wall and CPU seconds of the calling thread, on traces made anew."""
    allocate = _allocators()
    gc.collect()
    tracemalloc.start(frames)
    kept = [_deep(one, TRACES // PLACES, DEPTH) for one in allocate]
    began_s, began_cpu_s = time.perf_counter(), time.thread_time()
    read()
    wall_s, cpu_s = time.perf_counter() - began_s, time.thread_time() - began_cpu_s
    tracemalloc.stop()
    del kept
    return wall_s, cpu_s


def _allocators() -> list[Callable[[int], list[object]]]:
    """Functions that allocate, each on a line of its own."""
    source = "\n".join(
        f"def allocate_{n}(count):\n    return [object() for _ in range(count)]"
        for n in range(PLACES)
    )
    made: dict[str, Callable[[int], list[object]]] = {}
    exec(compile(source, "/srv/app/tasks.py", "exec"), made)
    return [made[f"allocate_{n}"] for n in range(PLACES)]


def _deep(allocate: Callable[[int], list[object]], count: int, depth: int) -> list[object]:
    return _deep(allocate, count, depth - 1) if depth else allocate(count)


def _snapshot() -> None:
    tracemalloc.take_snapshot().statistics("traceback")


def _ours_stopping() -> None:
    with NoCollections():
        traces = take_traces()
        tracemalloc.stop()
        sites = group_traces(traces)
        del traces
    changed_sites({}, sites, SiteFilter())


def _ours() -> None:
    changed_sites({}, live_sites(), SiteFilter())


if __name__ == "__main__":
    main()
