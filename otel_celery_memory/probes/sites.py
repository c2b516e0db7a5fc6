"""Live ``tracemalloc`` traces, grouped by the site that allocated them.

``tracemalloc.take_snapshot`` wraps each trace in objects, which takes 3 to 11 us each. The raw list
of tuples takes 0.2 us a trace, and grouping it by its own tuples as little again. While tracing is
on, what grouping allocates is traced too, and grouping takes four to ten times as long. So where
tracing may stop: take the traces, stop, then group.
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

    It would visit them, and then, because they are so many, the whole heap: a third of the time of
    reading. They are in no cycle, and all freed at the end, if the caller keeps none. Afterwards
    the collector is on or off as before. It belongs to the whole process, so another thread's
    ``gc.disable()`` in these milliseconds is undone.

    This is a class of our own and not a generator of ``contextlib``: what is alive while we read
    must have been allocated in a file of ours. Otherwise it counts as retained by the task.
    """

    def __enter__(self) -> None:
        self._was_enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was_enabled:
            gc.enable()


def take_traces() -> Traces:
    """Every live trace, to be grouped after tracing has stopped. Call it in `NoCollections`."""
    if _tracemalloc is not None:
        traces: Traces = _tracemalloc._get_traces()
        return traces
    # Not CPython, or a future one: ten times slower, with the same content.
    return [
        (trace.domain, trace.size, tuple((f.filename, f.lineno) for f in reversed(trace.traceback)))
        for trace in tracemalloc.take_snapshot().traces
    ]


def group_traces(traces: Traces) -> LiveSites:
    """Bytes and blocks of traces by their frames."""
    # Lists of sizes, which exist already. Running sums would be one or two new objects for every
    # trace, and these are traced where tracing is on.
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
    """What changed at one site between two reads; ``stack`` is empty for one frame."""

    path: str
    line: int
    size_bytes: int
    blocks: int
    stack: tuple[tuple[str, int], ...]


def sign_generated_code(package: str = __name__.partition(".")[0]) -> None:
    """Give the generated code of our data classes and named tuples a file name of ours.

    The standard library compiles their constructors from text, with the file name ``<string>``,
    which those of the user's classes have as well.
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
    """What was alive at both reads: of each site the smaller count."""
    both: LiveSites = {}
    for frames, (size, blocks) in first.items():
        size_later, blocks_later = later.get(frames, (0, 0))
        if blocks_later:
            both[frames] = (min(size, size_later), min(blocks, blocks_later))
    return both


def changed_sites(before: LiveSites, after: LiveSites, chosen: SiteFilter) -> list[SiteDelta]:
    """The sites that changed, largest growth first, without ours and the import machinery's."""
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
    """Which frame of a trace names its site: by the settings' file patterns, never our own code.

    The most recent frame of the user's code is chosen, rather than of a library that it called.

    ``called_from`` is the function, as (file, first line, last line), that calls our receivers:
    what it holds meanwhile is alive at every read, and no leak.
    """

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        called_from: tuple[str, int, int] = ("", 0, 0),
    ) -> None:
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self._called_from, self._first_line, self._last_line = called_from
        self._allowed: dict[str, bool | None] = {}

    def owner(self, frames: Frames) -> tuple[str, int] | None:
        """The frame that names the site; ``None`` where the site is left out."""
        path, line = frames[0]
        if path.startswith(_NEVER):
            return None
        if path == self._called_from and self._first_line <= line <= self._last_line:
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
