"""Windows of one kind that are part of a capture, added up by site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from otel_celery_memory.captures.format import INT64_MAX
from otel_celery_memory.captures.model import CapturedSite
from otel_celery_memory.ipc.records import Site, SitesWindow
from otel_celery_memory.reporter.sites import CodePlace
from otel_celery_memory.reporter.window_totals import SiteKey

_SITES_MAX = 20_000


class GatheredWindows:
    """Adds up; sites beyond a bound are added to the rest."""

    def __init__(self) -> None:
        self._runs: Counter[str] = Counter()
        self._size_bytes: Counter[SiteKey] = Counter()
        self._blocks: Counter[SiteKey] = Counter()
        self._other_bytes = self._other_blocks = 0

    @property
    def other_bytes(self) -> int:
        """Bytes at sites beyond the bound."""
        return _carried(self._other_bytes)

    @property
    def other_blocks(self) -> int:
        """Allocations at these."""
        return _carried(self._other_blocks)

    def window(self, record: SitesWindow) -> None:
        """A window's runs, and what it had no room for; its sites follow."""
        self._runs[record.task] += record.runs
        self._other_bytes += record.other_bytes
        self._other_blocks += record.other_blocks

    def site(self, record: Site) -> None:
        """What a window found at one site."""
        key = (record.task, record.path, record.line, record.stack)
        if key not in self._size_bytes and len(self._size_bytes) >= _SITES_MAX:
            self._other_bytes += record.size_bytes
            self._other_blocks += record.blocks
            return
        self._size_bytes[key] += record.size_bytes
        self._blocks[key] += record.blocks

    def runs_of_tasks(self) -> dict[str, int]:
        """How many runs of each task there were; what belongs to no task is left out."""
        return {task: _carried(runs, 0) for task, runs in self._runs.items() if task}

    def sites(self, describe: Callable[[str, int], CodePlace]) -> tuple[CapturedSite, ...]:
        """The sites, largest first, as `describe` names their places."""
        return tuple(
            self._site(key, describe(key[1], key[2]))
            for key in sorted(self._size_bytes, key=lambda key: -self._size_bytes[key])
        )

    def _site(self, key: SiteKey, place: CodePlace) -> CapturedSite:
        task, path, line, stack = key
        return CapturedSite(
            task=task,
            path=path,
            line=_carried(line, 0),
            function=place.function,
            name=place.name,
            stack=tuple(_frame(text) for text in stack.split("\n") if text),
            size_bytes=_carried(self._size_bytes[key]),
            blocks=_carried(self._blocks[key]),
        )


def _frame(text: str) -> tuple[str, int]:
    path, _, line = text.rpartition(":")
    return path, _carried(int(line)) if line.isascii() and line.isdigit() else 0


def _carried(number: int, low: int = -INT64_MAX) -> int:
    """What a capture can carry: forged records may add up to more, or to less than nothing."""
    return min(max(number, low), INT64_MAX)
