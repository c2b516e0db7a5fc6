"""How long looking at a million live traces holds a task's thread: `tracemalloc`'s way and ours.

Theirs is ``take_snapshot().statistics("traceback")``. Ours is a look of which tracing is stopped
in the middle, and one under which it goes on, as where every task is traced; each is compared
with an empty look before it. Every measurement has traces of its own.
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
    """Print the table."""
    ways: dict[str, Callable[[], None]] = {
        "take_snapshot().statistics": _snapshot,
        "ours, tracing stopped": _ours_stopping,
        "ours, tracing on": _ours,
    }
    for frames in (1, 10):
        held: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, look in ways.items():
                held[way].append(_held_s(look, frames))
        print(f"{TRACES:,} live traces of {frames} frame(s): seconds held (median of {ROUNDS})")
        theirs = [
            statistics.median(each)
            for each in zip(*held["take_snapshot().statistics"], strict=True)
        ]
        for way, found in held.items():
            wall_s, cpu_s = (statistics.median(each) for each in zip(*found, strict=True))
            print(
                f"  {way:28} wall {wall_s:7.3f}  CPU {cpu_s:7.3f}"
                f"  ratio {wall_s / theirs[0]:.3f} {cpu_s / theirs[1]:.3f}"
                f"{f'   (bound {BOUND})' if way.startswith('ours') else ''}"
            )


def _held_s(look: Callable[[], None], frames: int) -> tuple[float, float]:
    """Wall and CPU seconds of the calling thread, on traces made anew."""
    allocate = _allocators()
    gc.collect()
    tracemalloc.start(frames)
    kept = [_deep(one, TRACES // PLACES, DEPTH) for one in allocate]
    began_s, began_cpu_s = time.perf_counter(), time.thread_time()
    look()
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
