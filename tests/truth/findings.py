"""What must be seen beside who leaks: ends, messages, threads, processes, holders.

Each finding looks where a person does, in `celery inspect memory`, in the worker's log and in what
a receiver got, and says of each of them what is missing there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from demo.receiver import Point
from otel_celery_memory import conventions as c
from tests.truth.case import ANY
from tests.truth.conclusions import NOBODY, Seen, short, size_of, tables_of

MOST = 0.5
"""What each run keeps is kept by more than this share of the runs that were sampled."""
_RECOUNTED = 0.9
"""The last answer may be some seconds older than the last of what is counted."""


class Finding(Protocol):
    """Something that is true of a case."""

    def missing(self, seen: Seen) -> Iterator[str]:
        """Where it is not shown, and what is shown instead."""


@dataclass(frozen=True)
class Lost:
    """Runs of a task end their process: for this reason, with this exit code or signal."""

    task: str
    reason: str
    code: int | None = None
    signal: int | None = None

    @property
    def how(self) -> str:
        """The reason as ``inspect memory`` has it."""
        ends = {"code": self.code, "signal": self.signal}
        return ", ".join(
            [self.reason, *(f"{name} {end}" for name, end in ends.items() if end is not None)]
        )


@dataclass(frozen=True)
class Losses:
    """Processes are lost in these ways, each of them, and in no other."""

    ways: tuple[Lost, ...]

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        true = {(way.task, way.how) for way in self.ways}
        shown = {
            "inspect": {(short(row["task"]), row["how"]) for row in _rows(seen, "lost")},
            "events": {
                _way(event.attributes) for event in seen.events if event.name == c.PROCESS_LOST.name
            },
        }
        for where, ways in shown.items():
            yield from (f"{where}: {task} {how}" for task, how in sorted(true - ways))
            yield from (f"{where}: not true: {task} {how}" for task, how in sorted(ways - true))
        lines = [line for line in seen.log.splitlines() if "was lost" in line]
        for way in self.ways:
            if not any(f".{way.task} " in line and way.reason in line for line in lines):
                yield f"log: {way.task} {way.how}"
        reasons = {
            str(point.attributes[c.EXIT_REASON])
            for point in _points(seen, c.PROCESS_EXITS)
            if point.value
        }
        yield from (
            f"metric: exits: {way.reason}" for way in self.ways if way.reason not in reasons
        )


@dataclass(frozen=True)
class KillsAgain:
    """One message kills process after process: one row with their number, one line a minute."""

    task: str
    times: int
    rss_bytes: int

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        rows = [row for row in _rows(seen, "lost") if short(row["task"]) == self.task]
        times = [int(row["times"].replace(",", "")) for row in rows]
        if len(times) != 1 or times[0] < self.times:
            yield f"inspect: one row of {self.task}, {self.times} times or more: {times}"
        elif (size_of(rows[0]["RSS"]) or 0) < self.rss_bytes:
            yield f"inspect: how big it was: {rows[0]['RSS']}"
        lost = [event for event in seen.events if event.name == c.PROCESS_LOST.name]
        if {event.attributes.get(c.TASK_ID) for event in lost} != {row["id"] for row in rows}:
            yield "events: the same message as in inspect"
        counts = [event.attributes.get(c.EXIT_REPEATED) for event in lost]
        if counts != list(range(1, len(counts) + 1)):
            yield f"events: how often: {counts}"
        lines = sum("was lost" in line for line in seen.log.splitlines())
        if not 0 < lines <= seen.minutes + 2:
            yield f"log: a line a minute: {lines} lines"
        again = {
            short(point.attributes[c.TASK_NAME]): int(point.value)
            for point in _points(seen, c.EXITS_REPEATED)
        }
        if again != {self.task: len(lost) - 1}:
            yield f"metric: {len(lost) - 1} more by it: {again}"


@dataclass(frozen=True)
class LeavesProcesses:
    """Runs of a task leave processes behind, which hold so much each."""

    task: str
    each_bytes: int

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        rows = [row for row in _rows(seen, "started by") if row["left behind"] != "0"]
        if {short(row["started by"]) for row in rows} != {self.task}:
            yield f"inspect: left behind by {self.task}: {rows}"
        elif sum(size_of(row["RSS"]) or 0 for row in rows) < self.each_bytes:
            yield f"inspect: how big they are: {rows}"
        events = [event for event in seen.events if event.name == c.DESCENDANTS_LEFT.name]
        if {short(event.attributes[c.TASK_NAME]) for event in events} != {self.task}:
            yield f"events: left behind by {self.task}"
        levels = _highest(_points(seen, c.DESCENDANTS_LEFT_SIZE), c.TASK_NAME)
        if {short(task) for task in levels} != {self.task}:
            yield f"metric: left behind by {self.task}: {levels}"
        elif max(levels.values()) < self.each_bytes:
            yield f"metric: how big they are: {levels}"
        peaks = {short(p.attributes[c.TASK_NAME]) for p in _points(seen, c.TREE_PEAK)}
        if peaks != {self.task}:
            yield f"metric: peak with its processes: {peaks}"
        peak = _task_row(seen, self.task).get("with processes", "-")
        if (size_of(peak) or 0) < self.each_bytes:
            yield f"inspect: peak with its processes: {peak}"


@dataclass(frozen=True)
class HoldsMessages:
    """The main process holds so many messages of a state, and grows with them."""

    state: str
    words: str
    count: int
    grown_bytes: int

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        (line,) = [line for line in seen.inspected.splitlines() if "messages in main" in line] or [
            ""
        ]
        told = [part for part in line.partition(": ")[2].split(", ") if self.words in part]
        if not told or int(told[0].split()[0].replace(",", "")) < self.count * _RECOUNTED:
            yield f"inspect: {self.count:,} {self.words}: {line!r}"
        for metric, least in ((c.MESSAGES, self.count), (c.MESSAGES_SIZE, self.count)):
            most = _highest(_points(seen, metric), c.MESSAGE_STATE).get(self.state, 0)
            if most < least * _RECOUNTED:
                yield f"metric: {metric.name}: {most:,.0f}"
        main = [p.value for p in _points(seen, c.MEMORY) if p.attributes[c.SLOT] == "main"]
        if not main or max(main) - main[0] < self.grown_bytes:
            yield "metric: main has grown"


@dataclass(frozen=True)
class KeptByRuns:
    """Each run of a task keeps one of what the metric counts, and so the level of processes grows.

    ``task`` is `ANY` if a receiver of signals does it, with each task.
    """

    task: str
    retained: c.Metric
    level: c.Metric

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        keeping = {
            task
            for task, (net, count) in _net_by_task(seen, self.retained).items()
            if net > MOST * count
        }
        if self.task == ANY:
            if not keeping:
                yield f"metric: {self.retained.name}: of no task"
        elif keeping != {self.task}:
            yield f"metric: {self.retained.name}: of {', '.join(sorted(keeping)) or 'no task'}"
        grown = [
            last.value - first.value
            for first, last in _first_and_last(_points(seen, self.level))
            if first.attributes[c.SLOT] not in ("main", "reporter")
        ]
        if not grown or max(grown) < 10:
            yield f"metric: {self.level.name}: grows by {grown}"


@dataclass(frozen=True)
class FilesShown:
    """``inspect memory`` has so many descriptors of a process at least."""

    count: int

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        files = [row["files"].replace(",", "") for row in _rows(seen, "process")]
        if max((int(count) for count in files if count.isdecimal()), default=0) < self.count:
            yield f"inspect: files: {files}"


@dataclass(frozen=True)
class LeavesGarbage:
    """Runs of a task leave cyclic garbage, and those of no other task as much."""

    task: str
    each_bytes: int

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        sizes = {
            task: size / count
            for task, (size, count) in _net_by_task(seen, c.HEAP_GARBAGE).items()
            if count
        }
        leaving = {task for task, size in sizes.items() if size >= self.each_bytes}
        if leaving != {self.task}:
            yield f"metric: garbage of {self.task}: {sizes}"


@dataclass(frozen=True)
class PeakOf:
    """A run of a task takes so much; no run of the others takes half as much."""

    task: str
    size_bytes: int

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        inspected = {short(row["task"]): size_of(row["peak"]) or 0 for row in _rows(seen, "task")}
        metric: dict[str, float] = {}
        for point in _points(seen, c.RSS_PEAK):
            name = short(point.attributes[c.TASK_NAME])
            metric[name] = max(metric.get(name, 0), point.high)
        for where, peaks in (("inspect", inspected), ("metric", metric)):
            high = {task for task, peak in peaks.items() if peak >= self.size_bytes / 2}
            if high != {self.task} or peaks[self.task] < self.size_bytes:
                yield f"{where}: peak of {self.task}: {peaks}"


@dataclass(frozen=True)
class KeptFree:
    """malloc keeps so much in a process that nobody uses."""

    size_bytes: int

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        free = [size_of(row["malloc free"]) or 0 for row in _rows(seen, "process")]
        if max(free, default=0) < self.size_bytes:
            yield f"inspect: malloc free: {free}"
        levels = [point.value for point in _points(seen, c.MALLOC_FREE)]
        if max(levels, default=0) < self.size_bytes:
            yield "metric: malloc free"


@dataclass(frozen=True)
class HeldBy:
    """A census finds that objects of a type multiply, or what they hold, and what holds them."""

    type: str
    holder: str

    def missing(self, seen: Seen) -> Iterator[str]:
        """See `Finding`."""
        rows = _rows(seen, "objects of")
        if not any(self._is(row["objects of"], row["held by"]) for row in rows):
            yield f"inspect: {self.type} held by {self.holder}: {rows}"
        events = [event.attributes for event in seen.events if event.name == c.CENSUS.name]
        if not any(self._is(of.get(c.CENSUS_TYPE), of.get(c.CENSUS_HOLDER)) for of in events):
            yield f"events: {self.type} held by {self.holder}"

    def _is(self, type_name: object, holder: object) -> bool:
        return self.type in f"{holder} {type_name}" and self.holder in str(holder)


def _rows(seen: Seen, table: str) -> list[dict[str, str]]:
    return tables_of(seen.inspected).get(table, [])


def _task_row(seen: Seen, task: str) -> Mapping[str, str]:
    return next((row for row in _rows(seen, "task") if short(row["task"]) == task), {})


def _points(seen: Seen, metric: c.Metric) -> list[Point]:
    return [point for point in seen.points if point.metric == metric.name]


def _way(attributes: Mapping[str, object]) -> tuple[str, str]:
    task = short(attributes.get(c.TASK_NAME))
    signal, code = attributes.get(c.EXIT_SIGNAL), attributes.get(c.EXIT_CODE)
    return task, Lost(
        task,
        str(attributes[c.EXIT_REASON]),
        None if code is None else int(str(code)),
        None if signal is None else int(str(signal)),
    ).how


def _highest(points: Iterable[Point], attribute: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for point in points:
        name = str(point.attributes[attribute])
        found[name] = max(found.get(name, 0), point.value)
    return found


def _first_and_last(points: Iterable[Point]) -> list[tuple[Point, Point]]:
    streams: dict[tuple[tuple[str, str], ...], list[Point]] = {}
    for point in points:
        key = tuple(sorted((name, str(value)) for name, value in point.attributes.items()))
        streams.setdefault(key, []).append(point)
    return [(stream[0], stream[-1]) for stream in streams.values()]


def _net_by_task(seen: Seen, metric: c.Metric) -> dict[str, tuple[float, int]]:
    """Growth less shrinkage in all that was sent, and of how many runs; without warm-up."""
    signs = {c.GROW: 1, c.SHRINK: -1}
    found: dict[str, tuple[float, int]] = {}
    for _, last in _first_and_last(_points(seen, metric)):
        sign = signs.get(str(last.attributes.get(c.DIRECTION)), 0)
        task = short(last.attributes[c.TASK_NAME])
        if sign and task not in NOBODY:
            net, count = found.get(task, (0.0, 0))
            found[task] = net + sign * last.value, count + last.count
    return found
