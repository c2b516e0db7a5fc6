"""A capture as a value: sites whose allocations were alive, in which tasks and processes.

Sizes are in bytes as ``tracemalloc`` counts them, without malloc's overhead. Sums over runs can be
negative: a run may free more than it leaves.
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
"""All traced memory that was alive in the processes at one moment."""

KINDS = {
    RUNS: "left alive by traced runs, added up",
    PARTIAL: "alive when a part of a task had been traced",
    HEAP: "all that is traced and alive",
}
"""The kinds of capture, in words."""

ADDED_UP = (RUNS, PARTIAL)
"""Kinds whose sizes are sums over `Capture.runs`: compare their means."""
_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|lib(?:64)?/python3\.\d+)/", re.DOTALL)
"""Directories at the start of a path of an installed package or the standard library."""


class CaptureError(Exception):
    """A capture cannot be read, written or compared; the message is one line.

    Text from a file is quoted by ``repr``, so that it cannot control a terminal.
    """


@dataclass(frozen=True)
class CapturedSite:
    """A line of code, and the memory that it allocated and that was alive."""

    task: str
    """Name of the task; empty where the allocation belongs to none."""
    path: str
    """File of the line that owns the site, as the interpreter names it."""
    line: int
    """Its line, from 1; 0 if unknown."""
    function: str | None
    """Qualified name of the function around it, if known."""
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
    """RSS when the capture was taken; ``None`` if it could not be measured."""


@dataclass(frozen=True)
class Capture:
    """One capture of one worker."""

    kind: str
    """One of `KINDS`."""
    worker: str
    """The worker's node name; empty if unknown."""
    reason: str
    """Why it was taken, in a few words."""
    taken_ns: int
    """When it was finished: nanoseconds since the epoch."""
    duration_s: float
    """Seconds from its beginning to its end."""
    frames: int
    """Stack depth that was traced."""
    tracing: str
    """How it was traced: a value of the setting ``tracing``, or ``tracemalloc`` for a snapshot that
    was taken without this package."""
    processes: tuple[CapturedProcess, ...]
    runs: Mapping[str, int]
    """Traced runs, or parts of runs, by the task's name."""
    sites: tuple[CapturedSite, ...]
    other_bytes: int
    """Bytes at sites beyond the bound on their number."""
    other_blocks: int
    """Allocations at sites beyond the bound."""


def short_path(path: str, roots: Sequence[str] = ()) -> str:
    """A path relative to site-packages, the standard library or the first matching root.

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
    """Shortens paths as the sites' own names do, whatever directory the worker ran in."""

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
    """The directory that a site's name leaves out of its path."""
    short = site.name.removesuffix(f":{site.line}")
    root = site.path.removesuffix(short)
    return root if short and root.endswith("/") and root != site.path else None
