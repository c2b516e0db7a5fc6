"""What a person concludes from what is shown: pure functions of text, points and events.

A person reads the first row, and believes a row that claims growth worth a word: more than
`SHARE` of what the processes really grew and more than `ALLOWED_BYTES_PER_MINUTE`. Who has found
the task so, and no line that claims as much, reads the task's first line: what C takes for an
object is in no line's size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import otel_celery_memory
from demo.receiver import Event, Point
from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import SHARED_NAME
from otel_celery_memory.leaks.verdict import State
from tests.truth.case import ANY, Shape

SHARE = 0.01
ALLOWED_BYTES_PER_MINUTE = 1024
RETAINED = ("celery.task.heap.retained", c.RSS_RETAINED.name)
"""What tells who leaks; the second stands in where a worker does not send the first."""
_SIGNS = {c.GROW: 1, c.SHRINK: -1}
"""Any other direction, such as that of warm-up, is no growth that goes on."""
NOBODY = ("", "-", SHARED_NAME)
"""In place of a task: code of the user's that Celery calls around runs, as a receiver."""
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_CELLS = re.compile(r"\S+(?: \S+)*")
_OURS = str(Path(otel_celery_memory.__file__).parent)


@dataclass(frozen=True)
class Claim:
    """A row that says that memory stays: where it is shown, of which task and line, how much."""

    shown: str
    task: str
    line: str
    bytes_per_minute: float
    ours: bool = False

    @property
    def text(self) -> str:
        """For people."""
        size = f"{self.bytes_per_minute / 1024:,.1f} KiB a minute"
        return f"{self.shown}: {' '.join(filter(None, (self.task, self.line)))}, {size}"


@dataclass(frozen=True)
class Seen:
    """What a run of a case showed, and the truth beside it.

    ``inspected`` is the rendered answer of ``celery inspect memory``, ``runs`` are messages taken
    by task, ``rss`` is what the kernel said every few seconds of the processes that run tasks,
    together: seconds of a clock, and bytes. ``log`` is what the worker wrote, ``verdicts`` are
    those of the answer.
    """

    inspected: str
    points: tuple[Point, ...]
    events: tuple[Event, ...]
    runs: Mapping[str, int]
    seconds: float
    began_ns: int
    ended_ns: int
    rss: tuple[tuple[float, int], ...]
    log: str = ""
    verdicts: tuple[Mapping[str, Any], ...] = ()

    @property
    def minutes(self) -> float:
        """How long tasks were sent."""
        return self.seconds / 60

    @property
    def grown_bytes_per_minute(self) -> float:
        """Growth after the first third, in which there is warm-up; a spike is no growth."""
        after = self.rss[len(self.rss) // 3 :]
        some = max(len(after) // 5, 1)
        (first_s, first), (last_s, last) = (
            (median(at_s for at_s, _ in part), median(size for _, size in part))
            for part in (after[:some], after[-some:])
        )
        return (last - first) / (last_s - first_s) * 60 if last_s > first_s else 0.0

    @property
    def believed_bytes_per_minute(self) -> float:
        """A claim of more is one that a person believes."""
        return max(SHARE * self.grown_bytes_per_minute, ALLOWED_BYTES_PER_MINUTE)


@dataclass(frozen=True)
class Told:
    """The task and line that a person concludes leak; ``None`` is nobody."""

    task: str | None
    line: str | None

    def is_right(self, shape: Shape) -> bool:
        """Whether both are what is true."""
        leaks = shape.case.leaks
        if leaks is None:
            return self == Told(None, None)
        line_is_right = not shape.lines or self.line in shape.lines
        return line_is_right and leaks in (ANY, self.task)

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.task or 'nobody'} {self.line or ''}".strip()


@dataclass(frozen=True)
class Conclusion:
    """What a person concludes of one case, and who is accused though innocent.

    ``factor`` is by how much the metric puts the leaking task before the first that is innocent.
    """

    shape: Shape
    inspect: Told
    telemetry: Told
    accused: tuple[Claim, ...]
    factor: float | None
    spent: float | None
    missing: tuple[str, ...] = ()
    """What should be seen beside task and line, and is not."""

    @property
    def right(self) -> bool:
        """Whether all of it is right."""
        told = self.inspect.is_right(self.shape) and self.telemetry.is_right(self.shape)
        return told and not self.accused and not self.missing


def conclude(shape: Shape, seen: Seen) -> Conclusion:
    """What a person concludes from what was seen."""
    tables = tables_of(seen.inspected)
    task_rows = inspected_tasks(tables, seen.minutes)
    site_rows = inspected_sites(tables, seen.minutes)
    metrics = retained_by_task(seen.points, seen.began_ns, seen.ended_ns)
    rankings = site_rankings(seen.events, seen.minutes)
    last_ranking = rankings[-1] if rankings else []

    def first(claims: Sequence[Claim]) -> Claim | None:
        believed = [each for each in claims if believes(each)]
        return believed[0] if believed and believed[0] is claims[0] else None

    def believes(claim: Claim) -> bool:
        return claim.bytes_per_minute > seen.believed_bytes_per_minute

    every = (*task_rows, *site_rows, *metrics, *(each for rank in rankings for each in rank))
    accused = [
        claim for claim in every if believes(claim) and (claim.ours or not _is_right(shape, claim))
    ]
    accused += [claim for claim in alerting(seen) if not _is_right(shape, claim)]
    return Conclusion(
        shape,
        _told(task_rows, first(task_rows), site_rows, first(site_rows)),
        _told(metrics, first(metrics), last_ranking, first(last_ranking)),
        tuple(accused),
        _factor(shape, metrics),
        spent_share(seen.points),
        tuple(text for finding in shape.case.shows for text in finding.missing(seen)),
    )


def _is_right(shape: Shape, claim: Claim) -> bool:
    """Whether nobody innocent is named. At the line that leaks no task need be named at all."""
    of_nobody = claim.task in NOBODY and claim.line in shape.lines
    return of_nobody or is_guilty(shape, claim.task)


def is_guilty(shape: Shape, task: str) -> bool:
    """Whether to say of a task that it leaks is no accusation of an innocent one."""
    return shape.case.leaks == ANY or task in (shape.case.leaks, *shape.case.also)


def _factor(shape: Shape, claims: Iterable[Claim]) -> float | None:
    sizes = {claim.task: claim.bytes_per_minute for claim in claims}
    leaking = sizes.get(shape.case.leaks or "")
    others = [size for task, size in sizes.items() if not is_guilty(shape, task)]
    if leaking is None or not others:
        return None
    return leaking / max(1.0, *others)


def _told(
    tasks: Sequence[Claim],
    of_task: Claim | None,
    lines: Sequence[Claim],
    of_line: Claim | None,
) -> Told:
    """Where the task of the line has no number, as its runs overlap, it is that task."""
    if of_task is not None and of_line is None:
        of_line = next((claim for claim in lines if claim.task == of_task.task), None)
    numbers = {claim.task for claim in tasks}
    if of_task is None and of_line is not None and of_line.task not in numbers:
        return Told(of_line.task, of_line.line)
    return Told(of_task.task if of_task else None, of_line.line if of_line else None)


def short(task: object) -> str:
    """The last part of a task's name."""
    return str(task or "").rpartition(".")[2]


def place(name: object) -> str:
    """``file.py:12`` of a site's name, whatever directories are before it."""
    return str(name or "").rpartition("/")[2]


def tables_of(text: str) -> dict[str, list[dict[str, str]]]:
    """The tables of a rendered answer by their first heading; cells by heading."""
    tables: dict[str, list[dict[str, str]]] = {}
    for block in text.split("\n\n"):
        head, *lines = block.splitlines() or [""]
        starts = [(found.group(), found.start()) for found in _CELLS.finditer(head)]
        if len(starts) < 2 or not lines:
            continue
        ends = [*(start for _, start in starts[1:]), None]
        rows = [
            {name: line[start:end].strip() for (name, start), end in zip(starts, ends, strict=True)}
            for line in lines
            if not line.startswith("... and ")
        ]
        tables[starts[0][0]] = rows
    return tables


def size_of(text: str) -> float | None:
    """Bytes of ``1.5 KiB``; ``None`` of ``-``."""
    number, _, unit = text.partition(" ")
    try:
        return float(number.replace(",", "")) * _UNITS[unit or "B"]
    except (KeyError, ValueError):
        return None


def inspected_tasks(
    tables: Mapping[str, Sequence[Mapping[str, str]]], minutes: float
) -> list[Claim]:
    """Rows of the table of tasks: what a run retains, times the runs."""
    claims = []
    for row in tables.get("task", ()):
        retained = size_of(row["retained/run"])
        if retained is None:
            continue  # not known
        runs = int(row["runs"].replace(",", ""))
        claims.append(Claim("inspect, tasks", short(row["task"]), "", retained * runs / minutes))
    return claims


def inspected_sites(
    tables: Mapping[str, Sequence[Mapping[str, str]]], minutes: float
) -> list[Claim]:
    """Rows of the table of sites: what they say a minute, or what was left in all that was seen."""
    claims = []
    for row in tables.get("site", ()):
        rate = size_of(row["a minute"])
        if rate is None:
            seen = int(row["runs"].replace(",", ""))
            rate = (size_of(row["left/run"]) or 0) * seen / minutes
        line = place(row["site"])
        claims.append(Claim("inspect, sites", short(row["task"]), line, rate))
    return claims


def site_rankings(events: Iterable[Event], minutes: float) -> list[list[Claim]]:
    """The events of each ranking in the order of their ranks, the oldest ranking first."""
    by_time: dict[int, list[Event]] = {}
    for event in events:
        if event.name == c.ALLOCATION_SITE.name:
            by_time.setdefault(event.time_ns, []).append(event)
    return [
        [
            _site_claim(event, minutes)
            for event in sorted(
                by_time[time_ns], key=lambda each: int(each.attributes[c.SITE_RANK])
            )
        ]
        for time_ns in sorted(by_time)
    ]


def _site_claim(event: Event, minutes: float) -> Claim:
    of = event.attributes
    rate = of.get(c.SITE_RATE)
    if rate is None:
        rate = of[c.SITE_SIZE] * of[c.SITE_RUNS] / minutes
    ours = str(of.get(c.CODE_FILE, "")).startswith(_OURS)
    return Claim("event", short(of.get(c.TASK_NAME)), place(of[c.SITE_NAME]), rate, ours)


def retained_by_task(points: Iterable[Point], began_ns: int, ended_ns: int) -> list[Claim]:
    """Net growth a minute by task over the second half, the highest first.

    As a panel has it: net of the sampled runs, for each of them, times all runs.
    """
    points = list(points)
    names = {point.metric for point in points}
    metric = next((name for name in RETAINED if name in names), RETAINED[0])
    minutes = (ended_ns - began_ns) / 2 / 60e9
    runs = _runs(points, began_ns, ended_ns)
    claims = [
        Claim(f"metric {metric}", short(task), "", net / count * runs.get(task, 0) / minutes)
        for task, (net, count) in _net(points, metric, began_ns, ended_ns).items()
        if count
    ]
    return sorted(claims, key=lambda claim: -claim.bytes_per_minute)


def alerting(seen: Seen) -> list[Claim]:
    """What the shipped alert fires for: each verdict that once was ``leaking``."""
    leaks = {
        (
            str(point.attributes.get(c.TASK_NAME, "")),
            str(point.attributes.get(c.SITE_NAME, "")),
        ): 0.0
        for point in seen.points
        if point.metric == c.LEAK_ACTIVE.name and _is_leaking(point)
    }
    for point in seen.points:
        if point.metric == c.LEAK_RATE_LEVEL.name and _is_leaking(point):
            task = str(point.attributes.get(c.TASK_NAME, ""))
            a_minute = point.value * seen.runs.get(task, 0) / seen.minutes
            leaks[task, str(point.attributes.get(c.SITE_NAME, ""))] = a_minute
    return [Claim("alert", short(task), place(site), rate) for (task, site), rate in leaks.items()]


def _is_leaking(point: Point) -> bool:
    return point.attributes.get(c.LEAK_STATE) == State.LEAKING.value


def spent_share(points: Iterable[Point]) -> float | None:
    """The newest share of task time that tracing cost."""
    shares = [point for point in points if point.metric == c.TRACING_OVERHEAD.name]
    return shares[-1].value if shares else None


def _net(
    points: Iterable[Point], metric: str, began_ns: int, ended_ns: int
) -> dict[str, tuple[float, int]]:
    """By task: growth less shrinkage of the second half, and of how many runs."""
    found: dict[str, tuple[float, int]] = {}
    for first, last in _second_half(points, metric, began_ns, ended_ns):
        task = str(last.attributes[c.TASK_NAME])
        sign = _SIGNS.get(str(last.attributes.get(c.DIRECTION)), 0)
        if not sign:
            continue
        net, count = found.get(task, (0.0, 0))
        grown = last.value - (first.value if first else 0)
        runs = last.count - (first.count if first else 0)
        found[task] = net + sign * grown, count + runs
    return found


def _runs(points: Iterable[Point], began_ns: int, ended_ns: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for first, last in _second_half(points, c.MEASURED.name, began_ns, ended_ns):
        task = str(last.attributes[c.TASK_NAME])
        found[task] = found.get(task, 0) + int(last.value - (first.value if first else 0))
    return found


def _second_half(
    points: Iterable[Point], metric: str, began_ns: int, ended_ns: int
) -> list[tuple[Point | None, Point]]:
    """Of each cumulative stream its point at half time, if there was one, and its last."""
    half_ns = (began_ns + ended_ns) // 2
    streams: dict[tuple[object, ...], list[Point]] = {}
    for point in points:
        if point.metric == metric:
            key = (point.start_ns, *sorted((k, str(v)) for k, v in point.attributes.items()))
            streams.setdefault(key, []).append(point)
    before: Callable[[Point], bool] = lambda point: point.time_ns <= half_ns  # noqa: E731
    return [
        (next((p for p in reversed(stream) if before(p)), None), stream[-1])
        for stream in streams.values()
    ]
