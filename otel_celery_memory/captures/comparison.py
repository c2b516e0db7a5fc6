"""Filters and groups the sites of a capture, and compares two captures. Pure.

Sites are filtered by task and file, and grouped by line, file, function or traceback. `caveats` has
what limits the meaning of a comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from otel_celery_memory.captures.model import (
    ADDED_UP,
    HEAP,
    KINDS,
    Capture,
    CapturedSite,
    CaptureError,
    ShortNames,
)

LINE, FILE, FUNCTION, TRACEBACK = GROUPINGS = ("line", "file", "function", "traceback")
"""What sites can be grouped by."""


@dataclass(frozen=True)
class Group:
    """What one task left at one place: sites of one line, file, function or traceback."""

    task: str
    name: str
    """The place, the same on every machine: ``app/feeds.py:41``."""
    stack: tuple[str, ...]
    """If grouped by traceback: the name of each line, most recent call last."""
    size_bytes: int
    blocks: int
    function: str | None
    """If grouped by line or traceback: the function around the line, if it is known."""
    runs: int | None
    """Runs that the sizes are sums over; ``None`` if they are no sums."""

    @property
    def key(self) -> tuple[str, str, tuple[str, ...]]:
        """Groups with the same key, in one capture or two, are the same place."""
        return (self.task, self.name, self.stack)

    @property
    def place(self) -> str:
        """The place for people: ``app/feeds.py:41 in refresh``."""
        return f"{self.name} in {self.function}" if self.function else self.name

    @property
    def run_bytes(self) -> float | None:
        """Mean bytes of a run; ``None`` if there were no runs."""
        return self.size_bytes / self.runs if self.runs else None


@dataclass(frozen=True)
class SiteFilter:
    """Selects sites by patterns of ``fnmatch``, for the task's name and for files.

    Files are selected as by ``sites_include`` and ``sites_exclude``: if the line that owns a site
    does not match, the most recent line of its stack that does owns it; if none does, the site is
    left out.
    """

    task: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def passes_all(self) -> bool:
        """Whether no site is left out."""
        return self == SiteFilter()

    def apply(self, capture: Capture) -> Capture:
        """The capture with the selected sites only, each owned by a line that matches."""
        if self.passes_all:
            return capture
        names = ShortNames(capture.sites)
        functions = {(site.path, site.line): site.function for site in capture.sites}
        chosen = []
        for site in capture.sites:
            owner = self._owner(site)
            if owner is None:
                continue
            if owner != (site.path, site.line):
                site = replace(  # noqa: PLW2901
                    site,
                    path=owner[0],
                    line=owner[1],
                    function=functions.get(owner),
                    name=names.place(*owner),
                )
            chosen.append(site)
        # Sites beyond the bound have no names to match.
        return replace(capture, sites=tuple(chosen), other_bytes=0, other_blocks=0)

    def _owner(self, site: CapturedSite) -> tuple[str, int] | None:
        if self.task is not None and not fnmatchcase(site.task, self.task):
            return None
        frames = ((site.path, site.line), *reversed(site.stack))
        return next((frame for frame in frames if self._wants(frame[0])), None)

    def _wants(self, path: str) -> bool:
        return (not self.include or _matches(path, self.include)) and not _matches(
            path, self.exclude
        )


def grouped(capture: Capture, by: str) -> list[Group]:
    """The groups of a capture's sites, largest first; `by` is one of `GROUPINGS`."""
    names = ShortNames(capture.sites)
    functions: dict[tuple[str, str, tuple[str, ...]], str | None] = {}
    totals: dict[tuple[str, str, tuple[str, ...]], tuple[int, int]] = {}
    for site in capture.sites:
        stack = _stack(site, names) if by == TRACEBACK else ()
        key = (site.task, _name(site, by, names), stack)
        if by in (LINE, TRACEBACK):
            functions[key] = functions.get(key) or site.function
        size_bytes, blocks = totals.get(key, (0, 0))
        totals[key] = (size_bytes + site.size_bytes, blocks + site.blocks)
    groups = [
        Group(*key, size_bytes, blocks, functions.get(key), runs_of(capture, key[0]))
        for key, (size_bytes, blocks) in totals.items()
    ]
    return sorted(groups, key=lambda group: (-group.size_bytes, group.key))


def runs_of(capture: Capture, task: str) -> int | None:
    """Runs that the sizes of a task's sites are sums over; ``None`` if they are no sums."""
    return capture.runs.get(task, 0) if capture.kind in ADDED_UP else None


def _name(site: CapturedSite, by: str, names: ShortNames) -> str:
    if by == FILE:
        return names.file(site.path)
    if by == FUNCTION and site.function:
        return f"{names.file(site.path)} in {site.function}"
    # Lines without a known function each stay a group of their own.
    return site.name


def _stack(site: CapturedSite, names: ShortNames) -> tuple[str, ...]:
    return tuple(names.place(path, line) for path, line in site.stack)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def total(groups: Iterable[Group]) -> tuple[int, int]:
    """Bytes and blocks of all groups."""
    parts = [(group.size_bytes, group.blocks) for group in groups]
    return sum(size for size, _ in parts), sum(blocks for _, blocks in parts)


@dataclass(frozen=True)
class Change:
    """One place in two captures; with zeros in a capture that does not have it."""

    before: Group
    after: Group

    @property
    def size_bytes(self) -> int:
        """Bytes more in the second capture."""
        return self.after.size_bytes - self.before.size_bytes

    @property
    def blocks(self) -> int:
        """Blocks more in the second capture."""
        return self.after.blocks - self.before.blocks

    @property
    def run_bytes(self) -> float | None:
        """Bytes more a run; ``None`` if the task was not traced in both captures."""
        before, after = self.before.run_bytes, self.after.run_bytes
        return None if before is None or after is None else after - before

    @property
    def place(self) -> str:
        """The place for people, with the function that either capture knows."""
        return self.after.place if self.after.function else self.before.place

    @property
    def weight(self) -> float:
        """Changes are ranked by this: bytes, or bytes a run if sizes are sums over runs."""
        if self.after.runs is None:
            return self.size_bytes
        return (self.after.run_bytes or 0.0) - (self.before.run_bytes or 0.0)


def compare(before: Capture, after: Capture, by: str) -> list[Change]:
    """The changes by place, the largest first, growth before shrinking of the same size.

    Sizes that are sums over runs are ranked by their mean: ten runs of a healthy task add up to ten
    times as much as one. Of unchanged places the larger comes first.

    Raises `CaptureError` for captures of different kinds, whose difference has no meaning, and for
    tracebacks of different depths, which never match.
    """
    if before.kind != after.kind:
        raise CaptureError(
            f"a capture of kind {before.kind} ({KINDS[before.kind]}) cannot be compared with one "
            f"of kind {after.kind} ({KINDS[after.kind]})"
        )
    if by == TRACEBACK and before.frames != after.frames:
        raise CaptureError(
            f"tracebacks of {before.frames} and of {after.frames} frames cannot be compared: "
            "compare by line"
        )
    old = {group.key: group for group in grouped(before, by)}
    new = {group.key: group for group in grouped(after, by)}
    changes = [
        Change(old.get(key) or _nothing(before, key), new.get(key) or _nothing(after, key))
        for key in old.keys() | new.keys()
    ]
    return sorted(changes, key=_rank)


def caveats(before: Capture, after: Capture) -> Iterator[str]:
    """Reasons why a difference may mean less than it seems, one line each."""
    if before.worker != after.worker:
        yield "the captures are of different workers"
    if after.taken_ns < before.taken_ns:
        yield "AFTER was taken before BEFORE"
    if before.frames != after.frames:
        yield "traced at different depths: different lines may own the same site"
    if before.kind == HEAP:
        gone = {each.pid for each in before.processes} - {each.pid for each in after.processes}
        if gone:
            yield (
                f"{len(gone)} of {len(before.processes)} processes are gone since BEFORE, "
                "and their memory with them"
            )
    beyond = max(abs(before.other_bytes), abs(after.other_bytes))
    if beyond:
        yield f"up to {beyond:,} bytes lie at sites beyond the captures' bound, and in no line"


def _nothing(capture: Capture, key: tuple[str, str, tuple[str, ...]]) -> Group:
    return Group(*key, size_bytes=0, blocks=0, function=None, runs=runs_of(capture, key[0]))


def _rank(change: Change) -> tuple[object, ...]:
    weight = change.weight
    return (-abs(weight), -weight, -change.after.size_bytes, change.after.key)
