"""Site totals, fed run by run."""

from __future__ import annotations

from otel_celery_memory.ipc.records import WindowKind
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.symbolizer import CodePlace
from tests.unit.examples import finished, site, window

PATH = "/srv/app/feeds.py"


def describe(path: str, line: int) -> CodePlace:
    return CodePlace(f"app/feeds.py:{line}", f"function_{line}" if line < 100 else None)


class Totals:
    """Site totals of which a test needs one line a run."""

    def __init__(self, top: int = 10) -> None:
        self.totals = SiteTotals(describe, top)

    def first(self, sizes: dict[int, int], task: str = "a", pid: int = 1) -> None:
        """The first window of a task in a process."""
        self.run(sizes, task, pid)

    def run(self, sizes: dict[int, int] | None, task: str = "a", pid: int = 1) -> None:
        """A run that left `sizes` alive by line, ten blocks each; ``None`` was not traced."""
        self.totals.finished(finished(pid, task=task))
        if sizes is not None:
            self.window(sizes, task, pid)

    def window(
        self,
        sizes: dict[int, int],
        task: str = "a",
        pid: int = 1,
        kind: WindowKind = WindowKind.COMPLETE,
        runs: int = 1,
    ) -> None:
        """A window of tracing without a run that ended in this interval."""
        self.totals.window(window(pid, task, kind=kind, runs=runs, sites=len(sizes)))
        for line, size in sizes.items():
            self.totals.site(site(size, line, pid=pid, task=task, kind=kind, blocks=10, path=PATH))

    def met(self, *tasks: str) -> Totals:
        """These tasks had their first windows in process 1, which showed nothing."""
        for task in tasks or ("a",):
            self.window({}, task)
        self.totals.rank(60.0)
        for _ in range(10):
            self.totals.rank(60.0)
        return self

    def rates(self, interval_s: float = 60.0) -> list[tuple[str, int, int | None]]:
        """Task, line and rate of the ranked sites."""
        return [(s.task, s.line, s.rate_bytes_per_minute) for s in self.totals.rank(interval_s)]

    def sizes(self, interval_s: float = 60.0) -> list[tuple[str, int, int]]:
        """Window, line and size of the ranked sites."""
        return [(s.kind.name, s.line, s.size_bytes) for s in self.totals.rank(interval_s)]
