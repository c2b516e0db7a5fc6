"""The received telemetry as rows for the table and the summary. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from demo.receiver import Event, Point, Received
from otel_celery_memory import conventions as c


@dataclass(frozen=True)
class TaskRow:
    """One task: means are of a run, the peak is the highest of all runs, ``None`` is unknown."""

    name: str
    runs: int
    rss_delta_bytes: float | None
    rss_peak_bytes: float | None
    retained_bytes: float | None
    traced_delta_bytes: float | None


@dataclass(frozen=True)
class SiteRow:
    """A line, and what traced runs of a task left alive there, over all rankings so far."""

    name: str
    function: str
    task: str
    total_bytes: int
    blocks: int
    runs: int
    firsts: int
    """In how many rankings it was the first."""

    @property
    def run_bytes(self) -> float:
        """Left alive by a traced run, on average."""
        return self.total_bytes / max(self.runs, 1)

    @property
    def place(self) -> str:
        """For people: where in the code."""
        return f"{self.name} in {self.function}" if self.function else self.name


@dataclass(frozen=True)
class Numbers:
    """The numbers of one moment."""

    tasks: tuple[TaskRow, ...] = ()
    rss_bytes_by_slot: tuple[tuple[str, float], ...] = ()
    sites: tuple[SiteRow, ...] = ()
    """The sites; the one that left most memory alive comes first."""
    rankings: int = 0
    recycled: int = 0
    lost: int = 0
    frames_dropped: int = 0
    requests: int = 0

    @property
    def runs(self) -> int:
        """Runs of all tasks."""
        return sum(task.runs for task in self.tasks)


def numbers_of(received: Received) -> Numbers:
    """The numbers as of now, from the newest point of every stream and all events."""
    requests = received.requests
    exits = received.latest(c.PROCESS_EXITS.name)
    memory = received.latest(c.MEMORY.name)
    sites = [event for event in list(received.events) if event.name == c.ALLOCATION_SITE.name]
    return Numbers(
        tasks=_tasks(received),
        rss_bytes_by_slot=tuple(sorted((str(p.attributes[c.SLOT]), p.value) for p in memory)),
        sites=_sites(sites),
        # The events of one ranking have one time.
        rankings=len({event.time_ns for event in sites}),
        recycled=_count(exits, "max_tasks", "max_memory"),
        lost=_count(exits, "killed", "exited", "crashed", "time_limit", "terminated", "oom_kill"),
        frames_dropped=int(sum(p.value for p in received.latest(c.FRAMES_DROPPED.name))),
        requests=requests,
    )


def _tasks(received: Received) -> tuple[TaskRow, ...]:
    runs: dict[str, int] = defaultdict(int)
    for point in received.latest(c.MEASURED.name):
        runs[str(point.attributes[c.TASK_NAME])] += int(point.value)
    delta = _mean_change(received.latest(c.RSS_DELTA.name))
    retained = _mean_change(received.latest(c.HEAP_RETAINED.name))
    traced = _mean_change(received.latest(c.TRACED_DELTA.name))
    peak: dict[str, float] = {}
    for point in received.latest(c.RSS_PEAK.name):
        task = str(point.attributes[c.TASK_NAME])
        peak[task] = max(peak.get(task, 0.0), point.high)
    return tuple(
        TaskRow(task, count, delta.get(task), peak.get(task), retained.get(task), traced.get(task))
        for task, count in sorted(runs.items())
    )


def _mean_change(points: Iterable[Point]) -> dict[str, float]:
    """Growth less shrinkage of a run, by task: each direction is a series of its own.

    Warm-up has one too, and is neither.
    """
    total: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for point in points:
        if point.attributes[c.DIRECTION] not in (c.GROW, c.SHRINK):
            continue
        task = str(point.attributes[c.TASK_NAME])
        total[task] += point.value if point.attributes[c.DIRECTION] == c.GROW else -point.value
        count[task] += point.count
    return {task: total[task] / count[task] for task in total if count[task]}


def _sites(events: Iterable[Event]) -> tuple[SiteRow, ...]:
    by_site: dict[tuple[str, str, str], list[Event]] = defaultdict(list)
    for event in events:
        of = event.attributes
        by_site[of[c.SITE_NAME], of.get(c.CODE_FUNCTION, ""), of.get(c.TASK_NAME, "")].append(event)
    rows = [
        SiteRow(
            *key,
            total_bytes=sum(e.attributes[c.SITE_SIZE] * e.attributes[c.SITE_RUNS] for e in seen),
            blocks=max(e.attributes[c.SITE_BLOCKS] for e in seen),
            runs=sum(e.attributes[c.SITE_RUNS] for e in seen),
            firsts=sum(1 for e in seen if e.attributes[c.SITE_RANK] == 1),
        )
        for key, seen in by_site.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.total_bytes))


def _count(exits: Iterable[Point], *reasons: str) -> int:
    return int(sum(point.value for point in exits if point.attributes[c.EXIT_REASON] in reasons))
