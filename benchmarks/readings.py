"""What a contender's own output says first of a leak: who, where, and since when.

Each is read in the most favourable way that is reasonable. Of a table of lines, those of libraries
and of the interpreter are passed over, and of a stack the innermost line of the application is
taken: so would a person do who knows the application. What is said counts from the moment since
which it has been right to the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.outputs import (
    Outputs,
    ddtrace_profiles,
    memray_places,
    pyroscope_profiles,
)
from benchmarks.pprof import Place, Profile
from demo.receiver import Event
from otel_celery_memory import conventions as c
from tests.truth.case import Shape
from tests.truth.conclusions import Seen, place, short
from tests.zoo.judgement import judge, last_ranking, runs_of
from tests.zoo.said import said_in, standing

ROOT = Path(__file__).resolve().parents[1]
_APPLICATION = tuple(str(ROOT / "tests" / part) for part in ("truth", "zoo"))
_GROWN = 1.05
"""A level that grew by less than this is one that a person does not see on a graph."""
_PROCESS = {
    "process.memory.usage": "memory",
    "process.open_file_descriptor.count": "open files",
    "process.thread.count": "threads",
}

Said = tuple[float, str]
"""When it was said, and what: a line as ``file.py:12`` or a task."""


@dataclass(frozen=True)
class Reading:
    """What stands first, whether it is right, and after how many seconds it was.

    ``says`` is what kind of answer it is: a task with its line, a line, a task, that a process
    grows, or nothing. ``right`` means right as far as it goes.
    """

    first: str
    says: str = "nothing"
    right: bool = False
    after_s: float | None = None
    broken: str = ""

    @property
    def text(self) -> str:
        """For people."""
        if self.broken:
            return f"broke: {self.broken}"
        if not self.first:
            return "says nothing"
        after = f", {self.after_s:.0f} s" if self.right and self.after_s is not None else ""
        return f"{'right' if self.right else 'WRONG'}: {self.says} {self.first}{after}"


def _of_ours(shape: Shape, seen: Seen, _: Outputs) -> Reading:
    """The first verdict that stands; before there is one, the first line of the ranking."""
    said = said_in(seen.events)
    judgement = judge(
        shape,
        said,
        seen.began_ns,
        runs_of(seen.points, shape.case.leaks),
        last_ranking(seen.events),
    )
    order = {"leaking": 0, "suspected": 1}
    stands = sorted(
        (each for each in standing(said) if each.stands), key=lambda each: order[each.state]
    )
    if not stands:
        return _ranked_first(shape, seen)
    first = stands[0]
    where = first.line or first.holder
    right = judgement.main == first and judgement.kind_is_right and judgement.place_is_right
    reached = judgement.suspected
    return Reading(
        f"{first.task or first.where} {where} ({first.kind}, {first.state})",
        "task and place" if where else "task",
        right,
        reached.seconds if reached else None,
    )


def _ranked_first(shape: Shape, seen: Seen) -> Reading:
    """Who keeps most and where, as is said before it is called a leak."""
    ranked = sorted(
        (event.time_ns / 1e9, _site_text(event))
        for event in seen.events
        if event.name == c.ALLOCATION_SITE.name and int(event.attributes[c.SITE_RANK]) == 1
    )
    right = {f"{shape.case.leaks} {line}" for line in shape.lines}
    return _reading("task and line, not called a leak yet:", ranked, seen, right.__contains__)


def _site_text(event: Event) -> str:
    return f"{short(event.attributes.get(c.TASK_NAME))} {place(event.attributes[c.SITE_NAME])}"


def _of_guides(shape: Shape, seen: Seen, outputs: Outputs) -> Reading:
    """The line that grew most between the snapshots of the processes, the newest ones added up."""
    newest: dict[int, Mapping[str, int]] = {}
    said: list[Said] = []
    for note in outputs.notes():
        grown: defaultdict[str, int] = defaultdict(int)
        for file, line, size in note["lines"]:
            if is_application(file):
                grown[f"{Path(file).name}:{line}"] += size
        newest[note["pid"]] = grown
        said.append((note["at"], first_of(newest.values())))
    return line_reading(shape, seen, said)


def _of_psutil(shape: Shape, seen: Seen, outputs: Outputs) -> Reading:
    """The task of which RSS grew most, from before its runs to after them."""
    newest: dict[int, Mapping[str, int]] = {}
    said: list[Said] = []
    for note in outputs.notes():
        newest[note["pid"]] = {name: size for name, (_, size) in note["grown"].items()}
        said.append((note["at"], first_of(newest.values()).rpartition(".")[2]))
    return _reading("task", said, seen, lambda text: text == shape.case.leaks)


def _of_profiles(kind: str, of: Callable[[Outputs], list[Profile]]) -> Callable[..., Reading]:
    """The line of the application that has most bytes alive more than at first."""

    def read(shape: Shape, seen: Seen, outputs: Outputs) -> Reading:
        oldest: dict[str, Mapping[str, int]] = {}
        newest: dict[str, Mapping[str, int]] = {}
        said: list[Said] = []
        for profile in of(outputs):
            alive = alive_by_line(profile.samples(kind))
            before = oldest.setdefault(profile.process, alive)
            grown = {line: size - before.get(line, 0) for line, size in alive.items()}
            # Before there are two to compare, what is alive is all there is.
            newest[profile.process] = alive if before is alive else grown
            said.append((profile.at_s, first_of(newest.values())))
        return line_reading(shape, seen, said)

    return read


def _of_memray(shape: Shape, seen: Seen, outputs: Outputs) -> Reading:
    """The line of the application with most bytes that were not freed when its trackers ended."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for stack, size in memray_places(outputs):
        sizes[line_of(stack)] += size
    sizes.pop("", None)
    return line_reading(shape, seen, [(seen.ended_ns / 1e9, first_of([sizes]))])


def _of_system_metrics(_: Shape, seen: Seen, outputs: Outputs) -> Reading:
    """Which level of a process grew: it names no task and no line."""
    levels: defaultdict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for point in list(outputs.otlp.received.points):
        if point.metric in _PROCESS:
            process = str(point.resource.get("service.instance.id", ""))
            levels[point.metric, process].append((point.time_ns, point.value))
    grown = sorted(
        (
            (series[-1][1] / series[0][1], metric, series[-1][0])
            for (metric, _), series in levels.items()
            if len(series) > 1 and series[0][1]
        ),
        reverse=True,
    )
    if not grown or grown[0][0] < _GROWN:
        return Reading("")
    times, metric, at_ns = grown[0]
    return Reading(
        f"{_PROCESS[metric]} of a process, {times:.2f} times as at first",
        "that a process grows:",
        True,
        (at_ns - seen.began_ns) / 1e9,
    )


READINGS: Mapping[str, Callable[[Shape, Seen, Outputs], Reading]] = {
    "default": _of_ours,
    "guides_1": _of_guides,
    "otel_system": _of_system_metrics,
    "ddtrace": _of_profiles("heap-space", ddtrace_profiles),
    "pyroscope": _of_profiles("inuse_space", pyroscope_profiles),
    "memray": _of_memray,
    "psutil": _of_psutil,
}
"""By contender. Ten frames of the guides' recipe name the same line as one does."""


def is_application(file: str) -> bool:
    """Whether a file is of the application that leaks, and of no library."""
    return file.startswith(_APPLICATION)


def line_of(stack: Iterable[Place]) -> str:
    """The innermost line of the application; empty if there is none."""
    return next(
        (f"{Path(file).name}:{line}" for file, line, _ in stack if is_application(file)), ""
    )


def alive_by_line(samples: Iterable[tuple[Sequence[Place], int]]) -> dict[str, int]:
    """Bytes by the application's line; what is of none is passed over."""
    found: defaultdict[str, int] = defaultdict(int)
    for stack, size in samples:
        found[line_of(stack)] += size
    found.pop("", None)
    return dict(found)


def first_of(tables: Iterable[Mapping[str, int]]) -> str:
    """What has most in all tables together; empty if nothing has more than 0."""
    together: defaultdict[str, int] = defaultdict(int)
    for each in tables:
        for name, size in each.items():
            together[name] += size
    largest = max(together.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    return largest[0] if largest[1] > 0 else ""


def line_reading(shape: Shape, seen: Seen, said: Sequence[Said]) -> Reading:
    """Of a contender that names lines. Where no line can be told, none is right."""
    return _reading("line", said, seen, lambda text: text in shape.lines)


def _reading(
    says: str, said: Sequence[Said], seen: Seen, is_right: Callable[[str], bool]
) -> Reading:
    if not said or not said[-1][1]:
        return Reading("")
    right = is_right(said[-1][1])
    since_s = right_since(said, is_right)
    after_s = None if since_s is None else max(since_s - seen.began_ns / 1e9, 0.0)
    return Reading(said[-1][1], says, right, after_s)


def right_since(said: Sequence[Said], is_right: Callable[[str], bool]) -> float | None:
    """Since when all that was said is right; ``None`` if the last is not."""
    since: float | None = None
    for at_s, text in reversed(said):
        if not is_right(text):
            break
        since = at_s
    return since
