"""Live ``tracemalloc`` traces grouped by the place in the code that allocated them.

``tracemalloc.take_snapshot`` wraps each trace in objects at 3 to 11 us apiece; the raw list of
tuples costs 0.2 us a trace, and grouping it by its own tuples as little again. While tracing is
on, what grouping allocates is traced too and costs it four to ten times as much: take the traces,
stop, then group, where tracing may stop.
"""

from __future__ import annotations

import gc
import sys
import sysconfig
import tracemalloc
from collections import defaultdict
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
"""(domain, size, frames, ...) of every live trace."""


class NoCollections:
    """Keep the cyclic collector off while a million traces come and go.

    It would go through them, and then through the whole heap for the number of them: a third of
    the time that looking takes. They are in no cycle and are gone again when this ends, if the
    caller keeps none. The collector is left as it was found; it is the whole process's, so
    another thread's ``gc.disable()`` in these milliseconds is not kept.

    A class of our own, and no generator of ``contextlib``: what is alive while we look must have
    been allocated in a file of ours, or it reads as something that the task left behind.
    """

    def __enter__(self) -> None:
        self._was_enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was_enabled:
            gc.enable()


def take_traces() -> Traces:
    """Every live trace, to be grouped when tracing has stopped; call in `NoCollections`."""
    if _tracemalloc is not None:
        traces: Traces = _tracemalloc._get_traces()
        return traces
    # Not CPython, or one to come: slower by ten times, the same content.
    return [
        (trace.domain, trace.size, tuple((f.filename, f.lineno) for f in reversed(trace.traceback)))
        for trace in tracemalloc.take_snapshot().traces
    ]


def group_traces(traces: Traces) -> LiveSites:
    """Bytes and blocks of traces by their frames."""
    # Lists of sizes that exist already: sums kept along the way would be a new object or two for
    # every trace, and these are traced where tracing is on.
    sizes: defaultdict[Frames, list[int]] = defaultdict(list)
    for trace in traces:
        sizes[trace[2]].append(trace[1])
    return {frames: (sum(found), len(found)) for frames, found in sizes.items()}


def live_sites() -> LiveSites:
    """All live traces, grouped by their frames; tracing may stay on."""
    with NoCollections():
        return group_traces(take_traces())


_PACKAGE = str(Path(__file__).resolve().parents[1])
_LIBRARIES = tuple(
    {
        path.rstrip("/") + "/"
        for path in (*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),)
    }
    | {"<frozen "}
)
_GENERATED = f"{_PACKAGE}/<generated>"
_NEVER = (_PACKAGE + "/", tracemalloc.__file__, "<frozen importlib", "<unknown>")


@dataclass(frozen=True)
class SiteDelta:
    """What changed at one site between two looks; ``stack`` is empty for one frame."""

    path: str
    line: int
    size_bytes: int
    blocks: int
    stack: tuple[tuple[str, int], ...]


def sign_generated_code(package: str = __name__.partition(".")[0]) -> None:
    """Have what our data classes and named tuples allocate read as ours.

    Their constructors are compiled from text by the standard library, under the file name
    ``<string>``, which the user's are as well.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == package:
            for kind in vars(module).values():
                if isinstance(kind, type) and kind.__module__ == name:
                    _sign(kind)


def _sign(kind: type) -> None:
    for found in vars(kind).values():
        function = getattr(found, "__func__", found)
        code = getattr(function, "__code__", None)
        if code is not None and code.co_filename == "<string>":
            function.__code__ = code.replace(co_filename=_GENERATED)


def still_alive(first: LiveSites, later: LiveSites) -> LiveSites:
    """What was alive at both looks: of each site the smaller count."""
    both: LiveSites = {}
    for frames, (size, blocks) in first.items():
        size_later, blocks_later = later.get(frames, (0, 0))
        if blocks_later:
            both[frames] = (min(size, size_later), min(blocks, blocks_later))
    return both


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

    Of those that may, the most recent one of the user's code goes before a library's that it
    called.

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
        self._allowed: dict[str, bool | None] = {}

    def owner(self, frames: Frames) -> tuple[str, int] | None:
        """The frame that names the site; ``None`` where the site is not told."""
        path, line = frames[0]
        if path.startswith(_NEVER):
            return None
        if path == self._looked_from and self._first_line <= line <= self._last_line:
            return None
        library = None
        for frame in frames:
            of_user = self._allows(frame[0])
            if of_user:
                return frame
            if of_user is False and library is None:
                library = frame
        return library

    def _allows(self, path: str) -> bool | None:
        """Whether a file is the user's; ``None`` where it must not name a site."""
        if path in self._allowed:
            return self._allowed[path]
        allowed = (
            not path.startswith(_NEVER)
            and (not self._include or any(fnmatchcase(path, p) for p in self._include))
            and not any(fnmatchcase(path, p) for p in self._exclude)
        )
        found = not path.startswith(_LIBRARIES) if allowed else None
        if len(self._allowed) < 10_000:
            self._allowed[path] = found
        return found
