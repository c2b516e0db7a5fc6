"""What a capture says: sites in the code whose allocations were found alive, and in what.

Sizes are in bytes as ``tracemalloc`` counts them, which is without what malloc adds. Where they
were added up over runs they can be negative: a run may free more than it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RUNS = "runs"
"""Left alive by traced runs, added up over the runs that `Capture.runs` counts."""
SLICE = "slice"
"""Alive when tracing of a part of a task ended: the task may still have freed it."""
HEAP = "heap"
"""All that was traced and alive in the processes at one moment."""

KINDS = {
    RUNS: "left alive by traced runs, added up",
    SLICE: "alive when a part of a task had been traced",
    HEAP: "all that is traced and alive",
}
"""The kinds of capture, in words."""

ADDED_UP = (RUNS, SLICE)
"""Kinds whose sizes are sums over `Capture.runs`: what can be compared is their mean."""


@dataclass(frozen=True)
class CapturedSite:
    """A place in the code, and what it allocated that was alive."""

    task: str
    """Name of the task; empty where the allocation belongs to none."""
    path: str
    """File of the line that owns the site, as the interpreter has it."""
    line: int
    """Its line, from 1; 0 where it is not known."""
    function: str | None
    """Qualified name of the function around it, where that is known."""
    name: str
    """The place for people, the same on every machine: ``app/feeds.py:41``."""
    stack: tuple[tuple[str, int], ...]
    """(file, line) pairs, most recent call last; empty where one frame was traced."""
    size_bytes: int
    """Bytes alive."""
    blocks: int
    """Allocations alive."""


@dataclass(frozen=True)
class CapturedProcess:
    """A process that the capture was taken in."""

    slot: str
    """``main`` or its place in the pool, as in ``celery.worker.slot``."""
    pid: int
    rss_bytes: int | None
    """RSS when it was taken; ``None`` where it could not be measured."""


@dataclass(frozen=True)
class Capture:
    """One capture of one worker."""

    kind: str
    """One of `KINDS`."""
    worker: str
    """The worker's node name; empty where it is not known."""
    reason: str
    """Why it was taken, in a few words."""
    taken_ns: int
    """When it was finished: nanoseconds since the epoch."""
    duration_s: float
    """Seconds from its first to its last look."""
    frames: int
    """Stack depth that was traced."""
    tracing: str
    """How it was traced: a value of the setting ``tracing``, or ``tracemalloc`` for a snapshot
    that somebody took by other means."""
    processes: tuple[CapturedProcess, ...]
    runs: Mapping[str, int]
    """Traced runs, or slices, by the task's name."""
    sites: tuple[CapturedSite, ...]
    other_bytes: int
    """Bytes at sites beyond the bound on their number."""
    other_blocks: int
    """Allocations at these."""
