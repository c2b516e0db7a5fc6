"""The metrics of one worker: the newest value of each stream, and series of what is plotted.

What takes room is bounded by a `Room` that all workers share. What had none is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from otel_celery_memory import conventions as c
from otel_celery_memory.view.otlp import Attributes, Sample
from otel_celery_memory.view.series import Batches, Series

LEVELS = frozenset(
    {
        *(c.MEMORY.name, c.MEMORY_UNIQUE.name, c.MEMORY_COPIED.name, c.DESCENDANTS.name),
        *(c.MEMORY_LIMIT.name, c.LIMIT_UTILIZATION.name, c.MEMORY_CGROUP.name),
        *(c.OPEN_FILES.name, c.OPEN_FILES_LIMIT.name, c.THREADS.name),
        *(c.MESSAGES.name, c.MESSAGES_SIZE.name),
        *(c.TRACING_OVERHEAD.name, c.PARTS_SWITCHED_OFF.name),
        *(c.LEAK_RATE, c.LEAK_ACTIVE.name, c.EXHAUSTION_TIME),
    }
)
"""Metrics whose last value counts, and that are gone when an export does not have them."""
TOTALS = frozenset(
    {
        *(c.MEASURED.name, c.RSS_DELTA.name, c.RSS_PEAK.name, c.TREE_PEAK.name),
        *(c.HEAP_RETAINED.name, c.OPEN_FILES_RETAINED.name, c.THREADS_RETAINED.name),
        *(c.TRACED_DELTA.name, c.PROCESS_EXITS.name),
        *(c.FRAMES_DROPPED.name, c.REPORTER_RESTARTS.name),
    }
)
"""Metrics that add up."""
PLOTTED = frozenset({c.MEMORY.name, c.MEMORY_UNIQUE.name})
_PARTS_MAX = 8
"""Starts of a stream that are told apart: a worker that restarts, or two of one name."""

Key = tuple[tuple[str, str], ...]


@dataclass
class Room:
    """How much more may be kept, for all workers together, and what had no room."""

    streams: int
    tasks: int
    slots: int
    left_out: int = 0


@dataclass
class Stream:
    """One combination of attributes of one metric. A total has a part for each start."""

    attributes: Attributes
    export: int
    parts: tuple[tuple[int, float, int], ...] = ()
    highest: float | None = None

    @property
    def value(self) -> float:
        """The level, or the sum of all that came."""
        return sum(value for _, value, _ in self.parts)

    @property
    def count(self) -> int:
        """Of a histogram: how many values were added up."""
        return sum(count for _, _, count in self.parts)

    def set_level(self, sample: Sample) -> None:
        """Takes a new level."""
        self.parts = ((0, sample.value, 0),)

    def add(self, sample: Sample) -> None:
        """Takes the newest total since a start, or what came since the last point."""
        if sample.highest is not None:
            self.highest = max(sample.highest, self.highest or sample.highest)
        if sample.delta:
            self.parts = ((0, self.value + sample.value, self.count + sample.count),)
            return
        kept = {start: (value, count) for start, value, count in self.parts}
        kept[sample.start_ns] = (sample.value, sample.count)
        starts = sorted(kept)
        if len(starts) > _PARTS_MAX:
            first, second = (kept.pop(start) for start in starts[:2])
            kept[starts[1]] = (first[0] + second[0], first[1] + second[1])
        self.parts = tuple((start, *kept[start]) for start in sorted(kept))


@dataclass
class Growth:
    """What sampled runs of a task retained, over time."""

    batches: Batches = field(default_factory=Batches)
    total_bytes: Series = field(default_factory=Series)
    """Estimated for all of its runs so far."""
    seen: tuple[int, float] = (0, 0.0)


class Streams:
    """The metrics of one worker."""

    def __init__(self) -> None:
        self._streams: dict[str, dict[Key, Stream]] = {}
        self._exports: dict[str, int] = {}
        self._export = 0
        self.growth: dict[str, Growth] = {}
        self.memory: dict[tuple[str, str], Series] = {}
        """By metric and slot."""

    def __len__(self) -> int:
        return sum(map(len, self._streams.values()))

    def take(self, samples: Iterable[Sample], time_s: float, room: Room) -> None:
        """Takes an export. ``time_s`` is when it came, seconds since the epoch."""
        self._export += 1
        for sample in samples:
            if sample.metric not in LEVELS and sample.metric not in TOTALS:
                continue
            stream = self._stream(sample, room)
            if stream is None:
                room.left_out += 1
                continue
            stream.export = self._export
            self._exports[sample.metric] = self._export
            if sample.metric in TOTALS:
                stream.add(sample)
            else:
                stream.set_level(sample)
            if sample.metric in PLOTTED:
                self._plot(sample, time_s, room)
        if self._exports.get(c.HEAP_RETAINED.name) == self._export:
            self._grow(time_s, room)
        self._forget()

    def all(self, metric: str) -> Iterable[Stream]:
        """The streams of a metric; of a level those that the last export with it had."""
        return self._streams.get(metric, {}).values()

    def total(self, metric: str) -> float:
        """The sum of all streams of a metric."""
        return sum(stream.value for stream in self.all(metric))

    def runs_by_task(self) -> dict[str, float]:
        """Runs measured, by the task's name."""
        runs: dict[str, float] = {}
        for stream in self.all(c.MEASURED.name):
            runs[task_of(stream)] = runs.get(task_of(stream), 0) + stream.value
        return runs

    def change_by_task(self, metric: str) -> dict[str, tuple[int, float]]:
        """Values counted, and growth less shrinkage, without warm-up; by the task's name."""
        changes: dict[str, tuple[int, float]] = {}
        for stream in self.all(metric):
            direction = stream.attributes.get(c.DIRECTION)
            if direction in (c.GROW, c.SHRINK):
                count, total = changes.get(task_of(stream), (0, 0.0))
                change = stream.value if direction == c.GROW else -stream.value
                changes[task_of(stream)] = (count + stream.count, total + change)
        return changes

    def _stream(self, sample: Sample, room: Room) -> Stream | None:
        key = tuple(sorted((name, str(value)) for name, value in sample.attributes.items()))
        of_metric = self._streams.setdefault(sample.metric, {})
        stream = of_metric.get(key)
        if stream is None and room.streams > 0:
            room.streams -= 1
            stream = of_metric[key] = Stream(sample.attributes, self._export)
        return stream

    def _plot(self, sample: Sample, time_s: float, room: Room) -> None:
        key = (sample.metric, str(sample.attributes.get(c.SLOT, "")))
        series = self.memory.get(key)
        if series is None and room.slots > 0:
            room.slots -= 1
            series = self.memory[key] = Series()
        if series is not None:
            series.append(time_s, sample.value)

    def _grow(self, time_s: float, room: Room) -> None:
        runs = self.runs_by_task()
        for task, (sampled, total) in self.change_by_task(c.HEAP_RETAINED.name).items():
            growth = self.growth.get(task)
            if growth is None:
                if room.tasks <= 0:
                    continue
                room.tasks -= 1
                growth = self.growth[task] = Growth()
            growth.batches.add(sampled - growth.seen[0], total - growth.seen[1])
            growth.seen = (sampled, total)
            if sampled:
                growth.total_bytes.append(time_s, total / sampled * runs.get(task, 0))

    def _forget(self) -> None:
        """Levels that are gone: a site, a leak or a slot that an export has no more."""
        for metric in LEVELS & self._streams.keys():
            last = self._exports.get(metric, 0)
            streams = self._streams[metric]
            for key in [key for key, stream in streams.items() if stream.export < last]:
                del streams[key]


def task_of(stream: Stream) -> str:
    """The name of the task that a stream is of."""
    return str(stream.attributes.get(c.TASK_NAME, ""))


def slot_of(stream: Stream) -> str:
    """The slot that a stream is of."""
    return str(stream.attributes.get(c.SLOT, ""))
