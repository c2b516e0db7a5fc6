"""Levels of the worker's processes that can be compared, step by step.

A level is worth something only beside another one of the same process at a like moment: the lowest
of a step, after a collection of the young objects, and once the process has been at work for a
while. `LevelSteps` adds up over all processes how much each resource has changed from step to step
(`Step`), so that neither a child that is replaced nor one that has just begun looks like growth.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from otel_celery_memory.ipc.records import (
    FloorMeasured,
    HeapSampled,
    RunRetained,
    TaskFinished,
)
from otel_celery_memory.leaks.resource import Resource
from otel_celery_memory.probes.allocators import SMALL_BLOCK_MAX_BYTES

WARM_UP_S = 30.0
"""So long a process must have been seen at work before its levels count."""
_PROCESSES_MAX = 512
_SAMPLED_FOR_S = 60.0
"""A process with a sampled run in that time is judged by those alone."""


@dataclass(frozen=True)
class Change:
    """How much a resource has changed in a step, over all processes that were compared.

    ``floor`` is the same between two full collections, ``None`` where there was none, ``garbage``
    what these have freed.
    ``age_s`` is for how long the oldest of those processes has been at work, ``processes`` how many
    have the resource, compared in this step or not.
    """

    grown: float
    runs: int
    age_s: float
    floor: float | None = None
    garbage: float = 0.0
    processes: int = 1


class _Compared(NamedTuple):
    grown: float
    runs: int
    age_s: float


@dataclass
class _Process:
    began_s: float
    levels: dict[Resource, float] = field(default_factory=dict)
    """The last level of each resource that was compared, or is to be compared with."""
    lowest: dict[Resource, float] = field(default_factory=dict)
    """The lowest in this step."""
    first_heap: float | None = None
    """The level of its heap when it was compared for the first time."""
    floor: float | None = None
    floors_grown: float | None = None
    """By how much the floor has changed in this step."""
    garbage: float = 0.0
    """What full collections have freed in this step."""
    runs: int = 0
    runs_at: dict[Resource, int] = field(default_factory=dict)
    """How many there had been when a resource was compared last."""
    sampled_s: float = 0.0
    heap: HeapSampled | None = None

    def compare(self) -> dict[Resource, tuple[float, int]]:
        """By how much each resource has changed since it was compared last, in how many runs."""
        changes = {}
        for resource, level in self.lowest.items():
            before, runs_before = self.levels.get(resource), self.runs_at.get(resource, 0)
            self.levels[resource], self.runs_at[resource] = level, self.runs
            if before is not None:
                changes[resource] = level - before, self.runs - runs_before
        self.lowest.clear()
        return changes

    def note(self, resource: Resource, level: float) -> None:
        """Notes a level; the lowest of a step counts."""
        known = self.lowest.get(resource)
        self.lowest[resource] = level if known is None else min(known, level)


class LevelSteps:
    """Collects levels by process, and compares them at the end of each step.

    Times are seconds since the epoch, as records have them. Bounded: of more than 512 processes,
    those that were silent for longest are forgotten.
    """

    def __init__(self, small_block_bytes: int, warm_up_s: float = WARM_UP_S) -> None:
        """``small_block_bytes``: what a block of the interpreter's counts in a heap's level."""
        self._small_block_bytes = small_block_bytes
        self._warm_up_s = warm_up_s
        self._processes: OrderedDict[int, _Process] = OrderedDict()

    def finished(self, record: TaskFinished) -> None:
        """A run has ended."""
        self._process(record.pid, record.time_ns).runs += 1

    def retained(self, record: RunRetained) -> None:
        """A run was sampled."""
        process = self._process(record.pid, record.time_ns)
        if record.level_bytes is not None:
            process.sampled_s = record.time_ns / 1e9
            process.note(Resource.HEAP, record.level_bytes)

    def floor(self, record: FloorMeasured) -> None:
        """All garbage was collected."""
        if record.heap_bytes is None:
            return
        process = self._process(record.pid, record.time_ns)
        before, process.floor = process.floor, record.heap_bytes
        process.note(Resource.FLOOR, record.heap_bytes)
        if before is None:
            # There may be garbage in that level, so it grows by more than is told then.
            before = process.first_heap
        if before is not None:
            process.floors_grown = (process.floors_grown or 0.0) + record.heap_bytes - before
            process.garbage += record.garbage_bytes or 0

    def heap(self, record: HeapSampled) -> None:
        """The heap was read at any moment, in the midst of runs, too."""
        process = self._process(record.pid, record.time_ns)
        process.heap = record
        if record.malloc_free_bytes is not None:
            process.note(Resource.MALLOC_FREE, record.malloc_free_bytes)
        if (
            record.malloc_used_bytes is not None
            and record.time_ns / 1e9 - process.sampled_s > _SAMPLED_FOR_S
        ):
            small_bytes = record.blocks * self._small_block_bytes
            process.note(Resource.HEAP, record.malloc_used_bytes + small_bytes)

    def read(
        self, pid: int, now_s: float, levels: Mapping[Resource, float | None], rss_bytes: int | None
    ) -> None:
        """A process was read in ``/proc``; ``None`` is a level that is not known."""
        process = self._processes.get(pid)
        if process is None:
            process = self._begin(pid, now_s)
        for resource, level in levels.items():
            if level is not None:
                process.note(resource, level)
        heap = process.heap
        if heap is not None and None not in (rss_bytes, heap.malloc_used_bytes):
            accounted = heap.blocks * SMALL_BLOCK_MAX_BYTES
            accounted += (heap.malloc_used_bytes or 0) + (heap.malloc_free_bytes or 0)
            # Below zero in a heap of many blocks, as most are smaller: its changes are what counts.
            process.note(Resource.OTHER, (rss_bytes or 0) - accounted)

    def gone(self, pid: int) -> None:
        """A process has ended."""
        self._processes.pop(pid, None)

    def step(self, now_s: float, *, counts: bool = True) -> dict[Resource, Change]:
        """Ends the step: the changes of all resources that were read twice.

        ``counts`` is false while the worker warms up: the levels are then noted, and no more.
        """
        parts: dict[Resource, list[_Compared]] = {}
        floors: list[float] = []
        garbage = 0.0
        for process in self._processes.values():
            process.began_s = min(process.began_s, now_s)  # the clock may be set back
            age_s = now_s - process.began_s
            is_warm = counts and age_s >= self._warm_up_s
            if is_warm and process.first_heap is None:
                process.first_heap = process.lowest.get(Resource.HEAP)
            for resource, each in process.compare().items():
                if is_warm:
                    parts.setdefault(resource, []).append(_Compared(*each, age_s))
            if is_warm and process.floors_grown is not None:
                floors.append(process.floors_grown)
                garbage += process.garbage
            process.floors_grown, process.garbage = None, 0.0
        return {
            resource: Change(
                sum(each.grown for each in compared),
                sum(each.runs for each in compared),
                max(each.age_s for each in compared),
                sum(floors) if floors and resource == Resource.HEAP else None,
                garbage,
                sum(resource in process.levels for process in self._processes.values()),
            )
            for resource, compared in parts.items()
        }

    def clear(self) -> None:
        """Forgets everything."""
        self._processes.clear()

    def _process(self, pid: int, time_ns: int) -> _Process:
        process = self._processes.get(pid)
        if process is None:
            return self._begin(pid, time_ns / 1e9)
        self._processes.move_to_end(pid)
        return process

    def _begin(self, pid: int, now_s: float) -> _Process:
        while len(self._processes) >= _PROCESSES_MAX:
            self._processes.popitem(last=False)
        process = self._processes[pid] = _Process(now_s)
        return process
