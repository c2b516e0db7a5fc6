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
_INSTALLED = tuple({sysconfig.get_path(name).rstrip("/") + "/" for name in ("purelib", "platlib")})
_PACKAGES_MAX = 100
_GENERATED = f"{_PACKAGE}/<generated>"
_OURS = _PACKAGE + "/"
_NEVER = (_OURS, tracemalloc.__file__, "<frozen importlib", "<unknown>")


@dataclass(frozen=True)
class Owner:
    """The line that answers for what was allocated.

    ``via`` is the line of a library that it went through, as ``path:line``; empty for none.
    """

    path: str
    line: int
    via: str = ""


@dataclass(frozen=True)
class SiteDelta:
    """What changed at one site between two reads; ``stack`` is empty for one frame."""

    path: str
    line: int
    size_bytes: int
    blocks: int
    stack: tuple[tuple[str, int], ...]
    via: str = ""
    of_library: bool = False
    """Whether no line of the stack is the user's."""


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


def growth(first: LiveSites, last: LiveSites) -> LiveSites:
    """What is alive at the last read beyond what was at the first: bytes and blocks, signed.

    What each run replaces is alive at both, and so is whatever every run shows once.
    """
    changed: LiveSites = {}
    for frames in first.keys() | last.keys():
        size, blocks = last.get(frames, (0, 0))
        size_before, blocks_before = first.get(frames, (0, 0))
        if size != size_before or blocks != blocks_before:
            changed[frames] = (size - size_before, blocks - blocks_before)
    return changed


def growing_throughout(first: LiveSites, second: LiveSites, share: float) -> LiveSites:
    """What has grown in both of two parts, of which the first is ``share`` of the whole.

    As much as the whole would have grown at the slower pace of the two.
    """
    grown: LiveSites = {}
    for frames, (size_first, blocks_first) in first.items():
        size_second, blocks_second = second.get(frames, (0, 0))
        size = round(min(size_first / share, size_second / (1 - share)))
        blocks = round(min(blocks_first / share, blocks_second / (1 - share)))
        if size > 0 and blocks > 0:
            grown[frames] = (size, blocks)
    return grown


def owned_sites(
    changes: LiveSites, chosen: SiteFilter, *, by_stack: bool = False
) -> list[SiteDelta]:
    """Changes by the line that answers for them, largest growth first; not ours.

    ``by_stack``: each stack is a site. Otherwise all stacks of a line that went through the same
    library's line are one, which has the stack of the largest.
    """
    sums: dict[tuple[Owner, Frames], tuple[int, int]] = {}
    largest: dict[tuple[Owner, Frames], tuple[int, Frames]] = {}
    for frames, (size, blocks) in changes.items():
        owner = chosen.owner(frames)
        if owner is None:
            continue
        key = (owner, frames if by_stack and len(frames) > 1 else ())
        size_before, blocks_before = sums.get(key, (0, 0))
        sums[key] = (size_before + size, blocks_before + blocks)
        if key not in largest or abs(size) > largest[key][0]:
            largest[key] = (abs(size), frames)
    deltas = [
        SiteDelta(
            owner.path,
            owner.line,
            size,
            blocks,
            largest[owner, key][1] if len(largest[owner, key][1]) > 1 else (),
            owner.via,
            not chosen.is_of_user(owner.path),
        )
        for (owner, key), (size, blocks) in sums.items()
        if size or blocks
    ]
    return sorted(deltas, key=lambda delta: delta.size_bytes, reverse=True)


def changed_sites(before: LiveSites, after: LiveSites, chosen: SiteFilter) -> list[SiteDelta]:
    """The sites that changed, largest growth first, without ours and the import machinery's."""
    return owned_sites(growth(before, after), chosen, by_stack=True)


class SiteFilter:
    """Which frame of a trace answers for its site: the user's most recent one, never our own.

    A file is the user's if it is neither in ``site-packages`` nor in the standard library. Where
    tasks live in an installed package, all of that package is the user's (`own_package`). The
    settings' patterns settle it: with ``include``, what they match is the user's, and nothing else
    names a site.

    ``called_from`` is the function, as (file, first line, last line), that calls receivers of
    signals: what it holds meanwhile is alive at every read, and no leak.
    """

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        called_from: tuple[str, int, int] = ("", 0, 0),
    ) -> None:
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self.called_from, self._first_line, self._last_line = called_from
        """The file of the function that calls receivers of signals."""
        self._packages: tuple[str, ...] = ()
        self._allowed: dict[str, bool | None] = {}

    def own_package(self, path: str) -> None:
        """The task function of a user lives in this file: its whole package is the user's."""
        for libraries in _INSTALLED:
            top = path[len(libraries) :].partition("/")[0] if path.startswith(libraries) else ""
            package = libraries + top + ("" if top.endswith(".py") else "/")
            if top and top != "celery" and package not in self._packages:
                self._packages = (*self._packages, package)[-_PACKAGES_MAX:]
                self._allowed.clear()

    def owner(self, frames: Frames) -> Owner | None:
        """The line that answers for a trace; ``None`` where the site is left out."""
        path, line = frames[0]
        if path.startswith(_NEVER):
            return None
        if path == self.called_from and self._first_line <= line <= self._last_line:
            return None
        library = None
        for frame in frames:
            if frame[0].startswith(_OURS):
                return None  # ours, through a library
            of_user = self.is_of_user(frame[0])
            if of_user:
                via = "" if library is None else f"{library[0]}:{library[1]}"
                return Owner(*frame, via)
            if of_user is False and library is None:
                library = frame
        return None if library is None else Owner(*library)

    def is_of_user(self, path: str) -> bool | None:
        """Whether a file is the user's; ``None`` where it must not name a site."""
        if path in self._allowed:
            return self._allowed[path]
        allowed = (
            not path.startswith(_NEVER)
            and (not self._include or any(fnmatchcase(path, p) for p in self._include))
            and not any(fnmatchcase(path, p) for p in self._exclude)
        )
        found = None
        if allowed:
            found = bool(
                self._include or path.startswith(self._packages) or not path.startswith(_LIBRARIES)
            )
        if len(self._allowed) < 10_000:
            self._allowed[path] = found
        return found
