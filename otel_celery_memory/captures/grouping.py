"""A capture's sites, chosen by task and file and grouped by line, file, function or traceback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from otel_celery_memory.captures.model import ADDED_UP, Capture, CapturedSite
from otel_celery_memory.captures.names import ShortNames

LINE, FILE, FUNCTION, TRACEBACK = GROUPINGS = ("line", "file", "function", "traceback")
"""What sites can be grouped by."""


@dataclass(frozen=True)
class Group:
    """What one task left at one place: sites of one line, file, function or traceback."""

    task: str
    name: str
    """The place, the same on every machine: ``app/feeds.py:41``."""
    stack: tuple[str, ...]
    """Where grouped by traceback: the name of each line, most recent call last."""
    size_bytes: int
    blocks: int
    function: str | None
    """Where grouped by line or traceback: the function around the line, if it is known."""
    runs: int | None
    """Runs of the task that the sizes were added up over; ``None`` where they were not."""

    @property
    def key(self) -> tuple[str, str, tuple[str, ...]]:
        """What makes two groups, of two captures perhaps, the same place."""
        return (self.task, self.name, self.stack)

    @property
    def place(self) -> str:
        """The place for people: ``app/feeds.py:41 in refresh``."""
        return f"{self.name} in {self.function}" if self.function else self.name

    @property
    def run_bytes(self) -> float | None:
        """Mean of a run; ``None`` where there were no runs."""
        return self.size_bytes / self.runs if self.runs else None

    @property
    def run_blocks(self) -> float | None:
        """Mean of a run; ``None`` where there were no runs."""
        return self.blocks / self.runs if self.runs else None


@dataclass(frozen=True)
class Choice:
    """Which sites are wanted: patterns of ``fnmatch``, for the task's name and for files.

    Files are chosen as by ``sites_include`` and ``sites_exclude``: where the line that owns a site
    is not wanted, the most recent wanted line of its stack owns it; where there is none, the site
    is left out.
    """

    task: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Choice()

    def of(self, capture: Capture) -> Capture:
        """The capture with the chosen sites alone, each with its owner among the wanted lines."""
        if self.everything:
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
        # The sites beyond the bound have no names to choose by.
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
    """Runs that the sizes at a task's sites were added up over, if they were."""
    return capture.runs.get(task, 0) if capture.kind in ADDED_UP else None


def _name(site: CapturedSite, by: str, names: ShortNames) -> str:
    if by == FILE:
        return names.file(site.path)
    if by == FUNCTION and site.function:
        return f"{names.file(site.path)} in {site.function}"
    # Lines whose function is not known have nothing that would make them one group.
    return site.name


def _stack(site: CapturedSite, names: ShortNames) -> tuple[str, ...]:
    return tuple(names.place(path, line) for path, line in site.stack)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def total(groups: Iterable[Group]) -> tuple[int, int]:
    """Bytes and blocks of groups together."""
    parts = [(group.size_bytes, group.blocks) for group in groups]
    return sum(size for size, _ in parts), sum(blocks for _, blocks in parts)
