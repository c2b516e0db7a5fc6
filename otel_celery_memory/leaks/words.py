"""A verdict in words: what a person reads in events, `inspect memory`, the view and alerts."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from otel_celery_memory.leaks.verdict import (
    Forecast,
    Holder,
    Interval,
    Kind,
    Place,
    State,
    Verdict,
    Where,
)

TimeText = Callable[[float], str]
"""Seconds since the epoch as a time for people."""
_LEAST_TOLD_SHARE = 0.01
_TYPES_TOLD = 4
_REASONS_TOLD = 2
"""Of why a verdict is in its state: the first are the strongest."""
_FAR_S = 30 * 86_400.0
_SPANS = ((1.0, "a second"), (60.0, "a minute"), (3_600.0, "an hour"))
_DAY_S = 86_400.0
_THINGS = {
    Kind.NATIVE: "native memory, which no Python object accounts for",
    Kind.MAPPING: "mapped memory, which no allocator accounts for",
    Kind.PYTHON: "Python objects",
}
"""What the headline does not say yet."""


class _Doing(NamedTuple):
    """What is wrong, as a verb, and what follows it before the amount."""

    infinitive: str
    singular: str
    past: str
    rest: str = ""

    def said(self, state: State, *, plural: bool) -> str:
        """The verb as it fits the state and the subject, and the rest."""
        if state == State.SUSPECTED:
            return f"may {self.infinitive}{self.rest}"
        present = self.infinitive if plural else self.singular
        return (self.past if state == State.ENDED else present) + self.rest


_LEAK = _Doing("leak", "leaks", "kept")
"""In the past a cache that has filled up looks the same: kept says no more than is known."""
_BY_RUNS = {
    Kind.FRAGMENTATION: _Doing(
        *("fragment", "fragments", "fragmented"), " memory, so that malloc keeps more free:"
    ),
    Kind.COPY_ON_WRITE: _Doing(
        *("copy", "copies", "copied"), " memory that was shared before the fork:"
    ),
    Kind.GARBAGE: _Doing(*("leave", "leaves", "left"), " garbage that waits for the collector:"),
    Kind.PROCESSES: _Doing(*("leave", "leaves", "left"), " processes behind, which grow by"),
    Kind.MESSAGES: _Doing(*("bring", "brings", "brought"), " more messages than can be run:"),
}
"""What runs of a task do, where that is no leak of theirs."""
_BY_PROCESSES = {
    **_BY_RUNS,
    Kind.MESSAGES: _Doing(
        *("take", "takes", "took"), " more messages than it gives to its children:"
    ),
}
_ADVICE = {
    Kind.PYTHON: "Give what holds them a bound, or let go of them when the run ends",
    Kind.NATIVE: "Look for a library of C, or a handle of one, that is not freed",
    Kind.MAPPING: "Close what maps memory: mmap, shared memory, large buffers of a library",
    Kind.FRAGMENTATION: "It is no leak of a task: set MALLOC_ARENA_MAX=2, or preload jemalloc",
    Kind.FILE_DESCRIPTORS: "Close what is opened, or open it once in each process",
    Kind.THREADS: "Stop or join what is started: executors, clients, timers",
    Kind.PROCESSES: "Wait for the processes that are started, or end them with their run",
    Kind.COPY_ON_WRITE: "Call gc.freeze() before the pool forks, or load it in each child",
    Kind.MESSAGES: "Send fewer messages with an ETA, or lower worker_prefetch_multiplier",
    Kind.GARBAGE: "Break the cycles, or do not disable the collector",
}


def local_time(time_s: float) -> str:
    """A time of today for people, in the process's timezone."""
    return datetime.fromtimestamp(time_s).strftime("%H:%M")


def headline(verdict: Verdict, time_text: TimeText = local_time) -> str:
    """Who leaks how much, and since when: the first sentence."""
    rate = verdict.rate
    bounds = ""
    if verdict.where in (Where.TASK, Where.RECEIVER) and rate is not None:
        much = f"{amount(rate.middle, verdict.kind)} a run"
        low, high = _number(rate.low, verdict.kind), _number(rate.high, verdict.kind)
        # What is the same to the last digit that is told is no range.
        bounds = f"{low} to {high}" if low != high else ""
        much += f" {verdict.condition}" if verdict.condition else ""
    else:
        much = speed(verdict)
    seen = filter(None, (bounds, _seen_in(verdict), _since(verdict, time_text)))
    return f"{_who_does_what(verdict)} {much} ({', '.join(seen)})."


def sentences(verdict: Verdict, time_text: TimeText = local_time) -> str:
    """The whole verdict, for a person who has to mend it."""
    parts = [
        headline(verdict, time_text),
        _what(verdict),
        _place(verdict.place),
        _forecast(verdict),
        _not_explained(verdict),
        _why(verdict),
        _advice(verdict) if verdict.state != State.ENDED else "",
    ]
    return " ".join(filter(None, parts))


def _advice(verdict: Verdict) -> str:
    bound = None if verdict.holder is None else verdict.holder.bound
    if bound is None:
        return advice(verdict.kind)
    return (
        f"What holds them is a cache of {bound:,} entries in each process: if they take little, it "
        "stops by itself when it is full; if not, give it a smaller bound."
    )


def advice(kind: Kind) -> str:
    """What to do about a leak of this kind."""
    return f"{_ADVICE[kind]}."


def speed(verdict: Verdict) -> str:
    """How fast the processes grow by it, in a unit that suits: ``1.5 MiB an hour``."""
    least = 1024 if verdict.kind.unit == "By" else 1
    speeds = [(verdict.rate_per_s * seconds, unit) for seconds, unit in _SPANS]
    value, unit = next((each for each in speeds if each[0] >= least), speeds[-1])
    return f"{amount(value, verdict.kind)} {unit}"


def amount(value: float, kind: Kind) -> str:
    """So much of what the kind counts: ``10.2 KiB``, ``1 open file``, ``0.5 threads``."""
    if kind.unit == "By":
        return _number(value, kind)
    thing = {"file": "open file"}.get(kind.unit, kind.unit)
    number = _number(value, kind)
    return f"{number} {thing}" + ("" if number == "1" else "s")


def types_text(holder: Holder) -> str:
    """Which types multiply, and by how many objects a run: ``+3 dict, +2 str``."""
    return ", ".join(f"+{_plain(count)} {name}" for name, count in holder.types[:_TYPES_TOLD])


def duration(seconds: float) -> str:
    """A time span for people: ``40 s``, ``7 h``, ``3 days``."""
    for size, unit in ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size or (size < 86_400 and seconds >= size):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _who_does_what(verdict: Verdict) -> str:
    kind, where, task = verdict.kind, verdict.where, verdict.task
    of_runs = bool(task) and where in (Where.TASK, Where.DESCENDANT)
    if of_runs and kind in _BY_RUNS:
        return f"Runs of {task} {_BY_RUNS[kind].said(verdict.state, plural=True)}"
    doing = _BY_PROCESSES.get(kind, _LEAK)
    if of_runs:
        return f"{task} {doing.said(verdict.state, plural=False)}"
    if where == Where.RECEIVER and task:
        subject = f"A receiver that runs with {task}"
    elif kind == Kind.MESSAGES:
        subject = "The main process"
    elif kind in (Kind.FRAGMENTATION, Kind.COPY_ON_WRITE) and where != Where.MAIN:
        subject = "The worker's processes"
    else:
        subject = {
            Where.TASK: "Some task, it is not known which,",
            Where.RECEIVER: "A receiver of Celery's signals",
            Where.IDLE: "Something beside the tasks",
            Where.MAIN: "The main process",
            Where.DESCENDANT: "Tasks" if kind == Kind.PROCESSES else "Processes of tasks",
        }[where]
    plural = subject.startswith(("Tasks", "Processes", "The worker's processes"))
    return f"{subject} {doing.said(verdict.state, plural=plural)}"


def _seen_in(verdict: Verdict) -> str:
    runs = _count(verdict.runs, "run") if verdict.runs else ""
    processes = _count(verdict.processes, "process") if verdict.processes else ""
    return " in ".join(filter(None, (runs, processes)))


def _since(verdict: Verdict, time_text: TimeText) -> str:
    since = f"since {time_text(verdict.since_s)}"
    age_s = verdict.now_s - verdict.since_s
    if age_s >= _DAY_S:
        since += f" {duration(age_s)} ago"
    ended = f", until {time_text(verdict.now_s)}" if verdict.state == State.ENDED else ""
    return since + ended


def _what(verdict: Verdict) -> str:
    holder = verdict.holder
    things = _THINGS.get(verdict.kind, "")
    if holder is None:
        return f"{things[:1].upper()}{things[1:]}." if things else ""
    counts = types_text(holder)
    parts = [
        ": ".join(filter(None, (things, f"{counts} a run" if counts else ""))),
        f"held by {holder.chain}" if holder.chain else "",
    ]
    text = ", ".join(filter(None, parts))
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _place(place: Place | None) -> str:
    if place is None:
        return ""
    inside = f" in {place.function}" if place.function else ""
    via = f", through {place.via}" if place.via else ""
    share = f" ({place.share:.0%} of it)" if place.share >= _LEAST_TOLD_SHARE else ""
    return f"Allocated at {place.name}{inside}{via}{share}."


def _forecast(verdict: Verdict) -> str:
    if verdict.state == State.ENDED:
        return ""
    parts = []
    if verdict.forecast is not None:
        parts.append(_time_left(verdict.forecast))
    if verdict.max_tasks_per_child:
        parts.append(
            f"max_tasks_per_child of at most {verdict.max_tasks_per_child:,} keeps it under until "
            "it is fixed"
        )
    if verdict.max_memory_per_child_bytes:
        parts.append(
            f"worker_max_memory_per_child of {verdict.max_memory_per_child_bytes // 1024:,} (KiB) "
            "lets healthy runs live"
        )
    return f"{'; '.join(parts)}." if parts else ""


def _time_left(forecast: Forecast) -> str:
    left: Interval = forecast.seconds
    where = "the worker" if forecast.slot == "main" else f"process {forecast.slot}"
    limit = f"its limit of {_number(forecast.limit_bytes, Kind.PYTHON)} ({forecast.limit})"
    if not left.middle <= _FAR_S:
        return f"At this pace {where} does not reach {limit} within a month"
    ends = duration(left.high) if left.high <= _FAR_S else "never"
    return (
        f"At this pace {where} reaches {limit} in about {duration(left.middle)} "
        f"({duration(left.low)} to {ends})"
    )


def _not_explained(verdict: Verdict) -> str:
    if verdict.explained is None:
        return ""
    rest = 1 - verdict.explained
    return f"Not explained by it: {rest:.0%} of the growth." if rest >= _LEAST_TOLD_SHARE else ""


def _why(verdict: Verdict) -> str:
    if not verdict.reasons:
        return ""
    return f"{verdict.state.value.capitalize()}: {'; '.join(verdict.reasons[:_REASONS_TOLD])}."


def _count(count: int, thing: str) -> str:
    plural = thing + ("es" if thing.endswith("s") else "s")
    return f"{count:,} {thing if count == 1 else plural}"


def _number(value: float, kind: Kind) -> str:
    if not math.isfinite(value):
        return "unbounded"
    if kind.unit != "By":
        return _plain(value)
    size = float(value)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"


def _plain(value: float) -> str:
    if 0 < abs(value) < 1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"
