"""Live ``tracemalloc`` traces grouped by the place in the code that allocated them.

``tracemalloc.take_snapshot`` wraps each trace in objects at 3 to 11 us apiece; the raw list of
tuples costs 0.3 us a trace, and grouping it by its own tuples as little again.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

_tracemalloc: ModuleType | None
try:
    import _tracemalloc
except ImportError:
    _tracemalloc = None

Frames = tuple[tuple[str, int], ...]
"""(file, line) pairs, most recent call first, as ``tracemalloc`` keeps them."""

LiveSites = dict[Frames, tuple[int, int]]
"""Bytes and blocks alive by the frames that allocated them."""


Traces = Sequence[tuple[Any, ...]]
"""(domain, size, frames, ...) of each live trace."""


def take_traces() -> Traces:
    """Every live trace, as it is now; holds the interpreter for 0.3 us a trace."""
    if _tracemalloc is not None:
        traces: Traces = _tracemalloc._get_traces()
        return traces
    # Not CPython, or one to come: slower by ten times, the same content.
    return [
        (trace.domain, trace.size, tuple((f.filename, f.lineno) for f in reversed(trace.traceback)))
        for trace in tracemalloc.take_snapshot().traces
    ]


_PACKAGE = str(Path(__file__).resolve().parents[1])
_NEVER = (_PACKAGE + "/", tracemalloc.__file__, "<frozen importlib", "<unknown>")


@dataclass(frozen=True)
class SiteDelta:
    """What changed at one site between two looks; ``stack`` is empty for one frame."""

    path: str
    line: int
    size_bytes: int
    blocks: int
    stack: tuple[tuple[str, int], ...]


def live_sites() -> LiveSites:
    """All live traces, grouped by their frames."""
    return group_traces(take_traces())


def still_alive(first: LiveSites, later: LiveSites) -> LiveSites:
    """What was alive at both looks: of each site the smaller count."""
    both: LiveSites = {}
    for frames, (size, blocks) in first.items():
        size_later, blocks_later = later.get(frames, (0, 0))
        if blocks_later:
            both[frames] = (min(size, size_later), min(blocks, blocks_later))
    return both


def group_traces(traces: Traces) -> LiveSites:
    """Traces grouped by their frames; best done when tracing has stopped."""
    found: LiveSites = {}
    get = found.get
    for trace in traces:
        frames = trace[2]
        size, blocks = get(frames, (0, 0))
        found[frames] = (size + trace[1], blocks + 1)
    return found


def changed_sites(before: LiveSites, after: LiveSites, chosen: SiteFilter) -> list[SiteDelta]:
    """What differs, largest growth first; our own and the import machinery's are left out."""
    changes: dict[tuple[tuple[str, int], Frames], tuple[int, int]] = {}
    for frames in before.keys() | after.keys():
        size_before, blocks_before = before.get(frames, (0, 0))
        size_after, blocks_after = after.get(frames, (0, 0))
        size, blocks = size_after - size_before, blocks_after - blocks_before
        if not size and not blocks:
            continue
        owner = chosen.owner(frames)
        if owner is None:
            continue
        key = (owner, frames if len(frames) > 1 else ())
        old = changes.get(key, (0, 0))
        changes[key] = (old[0] + size, old[1] + blocks)
    deltas = [
        SiteDelta(owner[0], owner[1], size, blocks, stack)
        for (owner, stack), (size, blocks) in changes.items()
    ]
    return sorted(deltas, key=lambda delta: delta.size_bytes, reverse=True)


class SiteFilter:
    """Which frames may name a site: file patterns as in the settings, never our own code.

    ``looked_from`` is a function, as (file, first line, last line), that calls us when we look:
    what it holds while it does is alive at every look, and no leak.
    """

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        looked_from: tuple[str, int, int] = ("", 0, 0),
    ) -> None:
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self._looked_from, self._first_line, self._last_line = looked_from
        self._allowed: dict[str, bool] = {}

    def owner(self, frames: Frames) -> tuple[str, int] | None:
        """The most recent frame that may name the site; ``None`` where the site is not told."""
        path, line = frames[0]
        if path.startswith(_NEVER):
            return None
        if path == self._looked_from and self._first_line <= line <= self._last_line:
            return None
        for frame in frames:
            if self._allows(frame[0]):
                return frame
        return None

    def _allows(self, path: str) -> bool:
        allowed = self._allowed.get(path)
        if allowed is None:
            allowed = (
                not path.startswith(_NEVER)
                and (not self._include or any(fnmatchcase(path, p) for p in self._include))
                and not any(fnmatchcase(path, p) for p in self._exclude)
            )
            if len(self._allowed) < 10_000:
                self._allowed[path] = allowed
        return allowed
