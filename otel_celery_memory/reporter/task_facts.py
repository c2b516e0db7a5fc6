"""What is known of each task while something grows: how often it ran, and what its runs keep."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otel_celery_memory.ipc.records import (
    RAISED_STATES,
    RunRetained,
    TaskFinished,
    WindowKind,
)
from otel_celery_memory.leaks.attribution import Attribution, TaskEvidence, attribute
from otel_celery_memory.leaks.conclusion import FoundSite, Growing, TaskFacts
from otel_celery_memory.leaks.resource import Resource
from otel_celery_memory.leaks.verdict import Interval, Place
from otel_celery_memory.reporter.census import ProcessCensus
from otel_celery_memory.reporter.holders import TaskCensus
from otel_celery_memory.reporter.state.totals import Kept, TaskTotal
from otel_celery_memory.telemetry.events import RankedSite

_MINUTES_MAX = 360
_PROCESSES_MAX = 512
_RSS_LEAST_BYTES = 4_096.0
"""A run that keeps less than a page of resident memory keeps nothing."""
_TASKS_KEPT = 30
"""Of so many tasks evidence outlives the reporter."""


class RunsByMinute:
    """How many runs of each task ended, by minute, for the last six hours."""

    def __init__(self) -> None:
        self._minutes: deque[tuple[int, Counter[str]]] = deque(maxlen=_MINUTES_MAX)

    def add(self, task: str, time_s: float) -> None:
        """Counts a run."""
        minute, minutes = int(time_s // 60), self._minutes
        if not minutes or minutes[-1][0] != minute:
            minutes.append((minute, Counter()))
        minutes[-1][1][task] += 1

    def since(self, time_s: float) -> Counter[str]:
        """Runs of each task since the minute of this time."""
        runs: Counter[str] = Counter()
        for minute, counts in self._minutes:
            if minute >= int(time_s // 60):
                runs.update(counts)
        return runs


@dataclass
class _Task:
    heap: TaskEvidence = field(default_factory=TaskEvidence)
    rss: TaskEvidence = field(default_factory=TaskEvidence)
    """By resident memory, which a task with a large working set seems to keep now and then."""
    overlaps: bool = False
    """Whether another run was in flight in its process during its last one."""
    collects: bool = True
    census: TaskCensus = field(default_factory=TaskCensus)


class TasksKnown:
    """Collects evidence by task; the caller bounds the names."""

    def __init__(self) -> None:
        self.runs = RunsByMinute()
        self._tasks: dict[str, _Task] = {}
        self._states: OrderedDict[int, tuple[str, str]] = OrderedDict()
        """How the last run of each process ended, and the one before."""

    def finished(self, task: str, record: TaskFinished) -> None:
        """A run has ended."""
        self.runs.add(task, record.time_ns / 1e9)
        self._task(task).overlaps = not record.exclusive
        states, pid = self._states, record.pid
        known = states.get(pid)
        states[pid] = ("" if known is None else known[1], record.state)
        if known is not None:
            states.move_to_end(pid)
        elif len(states) > _PROCESSES_MAX:
            states.popitem(last=False)

    def retained(self, task: str, record: RunRetained, *, warm_up: bool) -> None:
        """A run was sampled. What a worker's first runs keep is no evidence."""
        if record.warm_up or warm_up:
            return
        known = self._task(task)
        known.collects = record.garbage_bytes is not None
        if record.heap_bytes is not None:
            # The sample of a run that raised ends after the next run.
            before, last = self._states.get(record.pid, ("", ""))
            failed = before in RAISED_STATES or last in RAISED_STATES
            known.heap.add(record.heap_bytes, record.least_bytes, failed)

    def retained_rss(self, task: str, retained_bytes: int) -> None:
        """Resident memory changed by so much from a run's start to the next one's."""
        self._task(task).rss.add(retained_bytes, _RSS_LEAST_BYTES)

    def census(self, found: ProcessCensus) -> None:
        """A process has taken a census of a task."""
        if found.task:
            self._task(found.task).census.add(found)

    def facts(
        self,
        growing: Sequence[Growing],
        totals: Mapping[str, tuple[TaskTotal, Kept | None]],
        sites: Sequence[RankedSite],
    ) -> tuple[TaskFacts, ...]:
        """What is known of each task that ran since the first of these began to grow."""
        heap = self._attributed(growing, Resource.HEAP)
        other = self._attributed(growing, Resource.OTHER)
        runs = self.runs.since(min(each.since_s for each in growing))
        return tuple(
            self._facts(name, count, totals.get(name), heap, other, sites)
            for name, count in runs.items()
        )

    def _facts(
        self,
        name: str,
        runs: int,
        total: tuple[TaskTotal, Kept | None] | None,
        heap: Attribution,
        other: Attribution,
        sites: Sequence[RankedSite],
    ) -> TaskFacts:
        known = self._tasks.get(name) or _Task()
        counts, kept = total or (TaskTotal(), None)
        return TaskFacts(
            name,
            runs,
            None if name in heap.given_back else _retained(known.heap, kept),
            blocks_per_run=counts.left_behind.per_run("blocks") or 0.0,
            things=_things(counts),
            other=next((each.rate for each in other.shares if each.task == name), None),
            condition="in runs that fail" if known.heap.only_if_failed else "",
            if_so=known.heap.mean_of_failed,
            traced_runs=counts.traced_runs,
            overlaps=known.overlaps,
            collects=known.collects,
            sites=found_sites(sites, name),
            holder=known.census.holder,
            is_surely=any(each.task == name for each in heap.shares),
        )

    def kept(self, grown: float, since_s: float) -> Attribution:
        """Who has kept how much since then, by the samples of the runs, of so much growth."""
        return self._attribute(Resource.HEAP, grown, since_s)

    def _attributed(self, growing: Sequence[Growing], resource: Resource) -> Attribution:
        of_it = next((each for each in growing if each.resource == resource), None)
        if of_it is None:
            return Attribution()
        return self._attribute(resource, of_it.grown, of_it.since_s)

    def _attribute(self, resource: Resource, grown: float, since_s: float) -> Attribution:
        evidence = {
            name: task.heap if resource == Resource.HEAP else task.rss
            for name, task in self._tasks.items()
        }
        return attribute(grown, self.runs.since(since_s), evidence)

    def state(self) -> dict[str, Any]:
        """The evidence on the tasks of which there is most, for JSON."""
        most = sorted(self._tasks.items(), key=lambda each: -each[1].heap.samples)[:_TASKS_KEPT]
        return {name: known.heap.state() for name, known in most if known.heap.samples}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what ``state`` returned; raises what `TaskEvidence.restore` raises."""
        for name, kept in state.items():
            self._task(str(name)).heap.restore(kept)

    def clear(self) -> None:
        """Forgets everything."""
        self._tasks.clear()
        self._states.clear()
        self.runs = RunsByMinute()

    def _task(self, name: str) -> _Task:
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = _Task()
        return task


def _retained(evidence: TaskEvidence, kept: Kept | None) -> Interval | None:
    """What a run keeps, if both what was sampled and by how much the heaps grew say so."""
    if kept is None or not (kept.bytes_per_run or 0.0) > 0 or not evidence.samples:
        return None
    mean = evidence.mean
    return mean if mean.middle > 0 else None


def _things(total: TaskTotal) -> tuple[tuple[Resource, float], ...]:
    counts = (
        (Resource.OPEN_FILES, total.left_behind.per_run("open_files")),
        (Resource.THREADS, total.left_behind.per_run("threads")),
    )
    return tuple((resource, count) for resource, count in counts if count is not None)


def found_sites(sites: Sequence[RankedSite], task: str) -> tuple[FoundSite, ...]:
    """The sites of a task, or of none, in their order: complete runs alone, if there are any."""
    of_task = [site for site in sites if site.task == task]
    whole = [site for site in of_task if site.kind in (WindowKind.COMPLETE, WindowKind.PROCESS)]
    return tuple(
        FoundSite(
            Place(site.name, site.path, site.line, site.function, site.via, 1.0),
            site.where or "task",
            _bytes_per_run(site),
            site.of_library,
        )
        for site in whole
    )


def _bytes_per_run(site: RankedSite) -> float:
    """Sites of whole processes have their growth in all runs since the baseline."""
    runs = max(site.runs, 1) if site.kind == WindowKind.PROCESS else 1
    return site.size_bytes / runs
