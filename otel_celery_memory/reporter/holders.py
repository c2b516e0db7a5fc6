"""What holds the objects that multiply with the runs of a task: from the census of each process.

A census counts whatever has multiplied while runs of its task ended. Other tasks run meanwhile, and
what they fill, as a cache of their own, multiplies too: in one process now, in another one later.
What the task leaves multiplies in each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from otel_celery_memory.ipc.records import TypeGrown
from otel_celery_memory.leaks.verdict import Holder
from otel_celery_memory.probes.objects import UNKNOWN_HOLDER
from otel_celery_memory.reporter.census import ProcessCensus, added_up

_TYPES_SHOWN = 4
_TYPE_LEAST_A_RUN = 0.2
"""A type that multiplies more slowly is no part of what each run leaves."""


class TaskCensus:
    """The last census of one task, process by process."""

    def __init__(self) -> None:
        self.holder: Holder | None = None
        """``None`` where no census has found anything."""
        self._number = 0
        self._found: dict[str, ProcessCensus] = {}

    def add(self, found: ProcessCensus) -> None:
        """A process has completed the census; one that has found nothing says nothing."""
        if not found.grown or not found.counted.runs:
            return
        if found.counted.census != self._number:
            self._number, self._found = found.counted.census, {}
        self._found[found.process.slot] = found
        processes = list(self._found.values())
        runs = sum(each.counted.runs for each in processes)
        self.holder = holder_of(in_each(each.grown for each in processes), runs)


def in_each(processes: Iterable[Sequence[TypeGrown]]) -> list[TypeGrown]:
    """What has multiplied in each of the processes, added up; if nothing has, what has in any."""
    found: dict[tuple[str, str], list[TypeGrown]] = {}
    pids = set()
    for row in chain.from_iterable(processes):
        found.setdefault((row.type, row.holder), []).append(row)
        pids.add(row.pid)
    everywhere = [rows for rows in found.values() if {row.pid for row in rows} == pids]
    return [added_up(rows) for rows in everywhere or found.values()]


def holder_of(grown: Sequence[TypeGrown], runs: int) -> Holder | None:
    """What holds most of the objects that a census has found to multiply, and their types.

    What a running function holds goes with it: the pool has the last result and its traceback.
    """
    rows = [
        row
        for row in grown
        if row.growth >= _TYPE_LEAST_A_RUN * runs and not row.holder.startswith(UNKNOWN_HOLDER)
    ]
    if not rows:
        return None
    held = [(row.growth * row.alike / max(row.sampled, 1), row) for row in rows if row.holder]
    most, best = max(held, key=lambda pair: pair[0], default=(0.0, None))
    share = sum(objects for objects, _ in held) / sum(row.growth for row in grown)
    growth: dict[str, int] = {}
    for row in rows:  # the same type may multiply in several places
        growth[row.type] = growth.get(row.type, 0) + row.growth
    types = sorted(growth.items(), key=lambda each: -each[1])[:_TYPES_SHOWN]
    return Holder(
        best.holder if best is not None and most else "",
        tuple((name, more / runs) for name, more in types),
        share,
    )
