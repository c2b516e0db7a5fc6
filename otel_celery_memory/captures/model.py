"""What a capture says: sites in the code whose allocations were found alive, and in what.

Sizes are in bytes as ``tracemalloc`` counts them, which is without what malloc adds. Where they
were added up over runs they can be negative: a run may free more than it leaves. Files have short
names where a capture knows their owners.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

RUNS = "runs"
"""Left alive by traced runs, added up over the runs that `Capture.runs` counts."""
PARTIAL = "partial"
"""Alive when tracing of a part of a task ended: the task may still have freed it."""
HEAP = "heap"
"""All that was traced and alive in the processes at one moment."""

KINDS = {
    RUNS: "left alive by traced runs, added up",
    PARTIAL: "alive when a part of a task had been traced",
    HEAP: "all that is traced and alive",
}
"""The kinds of capture, in words."""

ADDED_UP = (RUNS, PARTIAL)
"""Kinds whose sizes are sums over `Capture.runs`: what can be compared is their mean."""
_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|lib(?:64)?/python3\.\d+)/", re.DOTALL)
"""What a path of an installed package or of the standard library begins with, as far as it goes."""


class CaptureError(Exception):
    """A capture that cannot be read, kept or compared; the message is one line.

    What it quotes of a file is quoted by ``repr``, so that a terminal takes no orders from it.
    """


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
    """Traced runs, or parts of runs, by the task's name."""
    sites: tuple[CapturedSite, ...]
    other_bytes: int
    """Bytes at sites beyond the bound on their number."""
    other_blocks: int
    """Allocations at these."""


def short_path(path: str, roots: Sequence[str] = ()) -> str:
    """A path below site-packages, the standard library or the first of `roots` that holds it.

    Each root ends with a slash. A virtual environment may lie inside one.
    """
    library = _LIBRARY.match(path)
    if library:
        return path[library.end() :]
    for root in roots:
        if path.startswith(root):
            return path[len(root) :]
    return path


class ShortNames:
    """Names places as the sites' own names do, in whatever directory these were run."""

    def __init__(self, sites: Iterable[CapturedSite]) -> None:
        roots = {root for site in sites if (root := _root(site))}
        self._roots = sorted(roots, key=len, reverse=True)

    def file(self, path: str) -> str:
        """The short name of a file."""
        return short_path(path, self._roots)

    def place(self, path: str, line: int) -> str:
        """The short name of a line."""
        return f"{self.file(path)}:{line}"


def _root(site: CapturedSite) -> str | None:
    """What the name of a site leaves out of its path."""
    short = site.name.removesuffix(f":{site.line}")
    root = site.path.removesuffix(short)
    return root if short and root.endswith("/") and root != site.path else None
