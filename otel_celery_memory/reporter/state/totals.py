"""What runs of each task keep, by the counters of the processes that they ran in.

Two counts are compared, of which neither is enough. What sampled runs left behind (`LeftBehind`)
says who it was, but knows the samples only: a list that grows once in a hundred runs is in none of
them. By how much the heaps have grown (`HeapLevels`) misses nothing and names nobody: within some
minutes there are too few levels for a fit of growth to runs, which names tasks that only happened
to run then. So no task keeps more a run than the heaps have grown by while it ran. Where they have
grown by much more than the samples explain, somebody does it: of a task whose samples would explain
much of it, fewer of them are enough.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from otel_celery_memory.ipc.records import (
    ALIKE_LEAST_BYTES,
    UNLIKE_LEAST_BYTES,
    RunRetained,
    TaskFinished,
    WhyNotTraced,
)

_INTERVAL_NS = 10 * 10**9
_INTERVALS_MAX = 40
_LATELY_NS = 50 * 10**9
_SAMPLES = 10
_SAMPLES_LEAST = 3
_SURE_ERRORS = 2.5
"""Standard errors that a mean must differ from zero by."""
_LIKELY_ERRORS, _LIKELY_SHARE = 1.4, 0.25
"""Where the heaps have grown by what nobody's samples explain: a mean of so many standard errors
that would explain such a share of it is believed. One sample alone that shows something makes 1."""
_SPREAD_LEAST_BYTES = 40.0
"""Samples differ by as much, whatever a few of them say: less than a block."""
_CONTRADICTION_FACTOR = 5.2
"""Claims of so many times what the counters say are no growth: those count a block of 512 bytes as
`SMALL_BLOCK_BYTES`."""
_WITHHELD_MOST_BYTES, _WITHHELD_ERRORS = 32 << 10, 2.0
"""What is withheld is told once it is more than both: bytes, and deviations of a sum by chance."""
_STEP_NS = 5 * 10**9
_STEPS_MAX = 24
_WARM_UP_STEPS = 6
_SPANS = (6, 12, _STEPS_MAX)
"""Over so many steps growth is looked at: the first that has enough runs."""
_GROWTH_RUNS = 20
_PROCESSES_MAX = 512
_LEVEL_NOISE_BYTES = 2 << 10
"""So much two levels of a heap that does not grow may differ: they are read before other runs."""
_UNEXPLAINED_LEAST_BYTES = 32 << 10
_UNEXPLAINED_SHARE = 0.5
"""Of the growth: what the samples leave unexplained is told from noise by that."""


class Kept(NamedTuple):
    """What a run of a task keeps by the counters."""

    bytes_per_run: float | None
    """Zero where the samples do not say that it is more or less than that; ``None`` where there are
    too few of them."""
    most_bytes: float
    """It is no more than that, by all that is known."""
    runs: int
    """Of so many runs that is known: sampled ones, or all while the levels of heaps were known."""
    is_nothing: bool
    """Whether so many runs kept nothing that it is known to be so."""
    growth_bytes: float | None = None
    """The heaps have grown by no more than that for each of its runs; ``None`` where that is not
    known. It misses nothing, where a sample misses a tuple that comes out of a free list."""

    @property
    def shows_nothing(self) -> bool:
        """Whether what is known of its runs does not show that they keep anything."""
        return self.bytes_per_run is not None and self.bytes_per_run <= 0

    def of_unexplained(self, unexplained_bytes: float, likely_bytes: float) -> Kept:
        """Where nobody's samples explain so much of the growth, for each of its runs.

        Somebody does it. If its samples are likely to show much of it, it is said to be this task.
        """
        kept = self
        if unexplained_bytes > kept.most_bytes:
            kept = kept._replace(most_bytes=unexplained_bytes, is_nothing=False)
        if not kept.bytes_per_run and likely_bytes >= _LIKELY_SHARE * unexplained_bytes:
            kept = kept._replace(bytes_per_run=min(likely_bytes, unexplained_bytes))
        return kept

    def within(self, growth: Growth) -> Kept:
        """No more than the heaps have grown by."""
        growth_bytes = (max(growth.bytes, 0.0) + growth.noise_bytes) / growth.runs
        if growth_bytes >= self.most_bytes:
            return self._replace(growth_bytes=growth_bytes)
        bytes_per_run = self.bytes_per_run
        if growth.is_none:
            bytes_per_run = 0.0
        elif bytes_per_run is not None:
            bytes_per_run = min(bytes_per_run, growth_bytes)
        return Kept(
            bytes_per_run,
            growth_bytes,
            max(self.runs, growth.runs),
            self.is_nothing or growth.stood_still,
            growth_bytes,
        )

    def contradicts(self, claim_bytes: float) -> bool:
        """Whether a run of the task leaves no such thing behind."""
        far_more = claim_bytes > _CONTRADICTION_FACTOR * max(self.most_bytes, 1.0)
        return self.is_nothing or (self.shows_nothing and far_more)


_UNKNOWN = Kept(None, math.inf, 0, is_nothing=False)
_WARMED_UP = Kept(None, 0.0, 2**63, is_nothing=True)
"""Of a task of which nothing is known since its worker has warmed up: it is not said to grow, not
even in few runs."""


@dataclass
class _Sizes:
    """Sums over sizes."""

    count: int = 0
    total_bytes: int = 0
    squares: int = 0
    largest_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Adds one."""
        self.count += 1
        self.total_bytes += size_bytes
        self.squares += size_bytes**2
        if abs(size_bytes) > abs(self.largest_bytes):
            self.largest_bytes = size_bytes

    def kept(self, least_bytes: float) -> Kept:
        """Their mean and its bounds. Of many sizes the largest one is left out: what happened once
        is no leak. ``least_bytes`` is what cannot be told from nothing.
        """
        count, total_bytes, squares = self.count, self.total_bytes, self.squares
        if count >= _SAMPLES:
            count -= 1
            total_bytes -= self.largest_bytes
            squares -= self.largest_bytes**2
        mean_bytes, error_bytes = _mean_and_error(
            count, total_bytes, squares, spread_least_bytes=_SPREAD_LEAST_BYTES
        )
        error_bytes = max(_SURE_ERRORS * error_bytes, least_bytes)
        # A block more or less is nothing in three samples, and something in ten.
        sure_least_bytes = 0 if self.count >= _SAMPLES else UNLIKE_LEAST_BYTES
        is_sure = abs(mean_bytes) > max(error_bytes, sure_least_bytes)
        sure_bytes = mean_bytes if is_sure else 0.0
        most_bytes = mean_bytes + error_bytes
        is_nothing = self.count >= _SAMPLES and most_bytes <= 2 * least_bytes
        return Kept(sure_bytes, most_bytes, self.count, is_nothing)

    def likely_bytes(self) -> float:
        """Their mean, the largest with them, if it is likely to be more than nothing; else zero."""
        if self.count < _SAMPLES:
            return 0.0
        mean_bytes, error_bytes = _mean_and_error(self.count, self.total_bytes, self.squares)
        return mean_bytes if mean_bytes > _LIKELY_ERRORS * error_bytes else 0.0


def _mean_and_error(
    count: int, total_bytes: int, squares: int, *, spread_least_bytes: float = 0.0
) -> tuple[float, float]:
    """The mean of sizes by their sums, and its standard error."""
    mean_bytes = total_bytes / count
    variance = max(squares / count - mean_bytes**2, spread_least_bytes**2)
    return mean_bytes, math.sqrt(variance / (count - 1))


def _sum(parts: Iterable[_Sizes]) -> _Sizes:
    whole = _Sizes()
    for part in parts:
        whole.count += part.count
        whole.total_bytes += part.total_bytes
        whole.squares += part.squares
        whole.largest_bytes = max(whole.largest_bytes, part.largest_bytes, key=abs)
    return whole


@dataclass
class _Samples:
    """Sums over the sampled runs of one interval."""

    began_ns: int
    runs: int = 0
    blocks: int = 0
    open_files: int = 0
    threads: int = 0
    garbage_bytes: int = 0
    alike: _Sizes = field(default_factory=_Sizes)
    unlike: _Sizes = field(default_factory=_Sizes)


class LeftBehind:
    """What sampled runs of one task left behind lately.

    A mean is over the last minute, or the newest intervals that have `_SAMPLES` samples, so that a
    cache that has filled up is soon forgotten and a rare task is still known. What was known last
    stays until something newer of the task replaces it.
    """

    def __init__(self) -> None:
        self.sampled_ns = 0
        """When a run was sampled last."""
        self._intervals: deque[_Samples] = deque(maxlen=_INTERVALS_MAX)

    def add(self, record: RunRetained) -> bool:
        """Adds a sampled run, but for a first one; whether its heap counts.

        Samples before a run of another task count as long as there are no others.
        """
        if record.warm_up:
            return True
        self.sampled_ns = max(record.time_ns, self.sampled_ns)
        if not self._intervals or record.time_ns - self._intervals[-1].began_ns >= _INTERVAL_NS:
            self._intervals.append(_Samples(record.time_ns))
        now = self._intervals[-1]
        now.runs += 1
        now.blocks += record.blocks
        now.open_files += record.open_files or 0
        now.threads += record.threads or 0
        now.garbage_bytes += record.garbage_bytes or 0
        if record.heap_bytes is not None:
            (now.alike if record.alike else now.unlike).add(record.heap_bytes)
        return bool(record.alike) or self._alike().count < _SAMPLES_LEAST

    def kept(self) -> Kept | None:
        """Net bytes a run; ``None`` while too few runs were sampled."""
        alike = self._alike()
        if alike.count >= _SAMPLES_LEAST:
            return alike.kept(ALIKE_LEAST_BYTES)
        every = _sum((alike, *(each.unlike for each in self._lately())))
        return every.kept(UNLIKE_LEAST_BYTES) if every.count >= _SAMPLES_LEAST else None

    def likely_bytes(self) -> float:
        """Net bytes a run of all samples that are kept, if they are likely to be more than nothing.

        What one sample in a hundred shows is not in those of the last minute.
        """
        return _sum(each.alike for each in self._intervals).likely_bytes()

    def _alike(self) -> _Sizes:
        return _sum(each.alike for each in self._lately())

    def per_run(self, field: str) -> float | None:
        """Net of another counter a run: ``blocks``, ``open_files``, ``threads`` and so on."""
        lately = self._lately()
        runs = sum(each.runs for each in lately)
        return sum(getattr(each, field) for each in lately) / runs if runs else None

    @property
    def samples(self) -> int:
        """How many runs the means are of."""
        return sum(each.runs for each in self._lately())

    def _lately(self) -> list[_Samples]:
        lately: list[_Samples] = []
        runs = 0
        for each in reversed(self._intervals):
            if runs >= _SAMPLES and lately[0].began_ns - each.began_ns > _LATELY_NS:
                break
            lately.append(each)
            runs += each.runs
        return lately


class Growth(NamedTuple):
    """By how much the heaps of processes have grown, in bytes, while a task ran so many times."""

    bytes: float
    noise_bytes: float
    """What cannot be told from nothing."""
    runs: int
    stood_still: bool = False
    """Whether it was none for two minutes: a task may leak in one run of hundreds, or pause."""

    @property
    def is_none(self) -> bool:
        """Whether they have not grown."""
        return self.bytes <= self.noise_bytes


@dataclass
class _Step:
    """What is known of five seconds of a process."""

    number: int
    level_bytes: int | None = None
    """The lowest: an argument or a result may be in memory at any other."""
    runs: Counter[str] = field(default_factory=Counter)
    runs_before: Counter[str] = field(default_factory=Counter)
    """Those of them that had ended when the level was the lowest."""


@dataclass(frozen=True)
class _Span:
    """The steps of a process between two of which the levels are known."""

    levels: tuple[int, ...] = ()
    runs: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Runs before the first level or after the last one."""
    is_warm: bool = False
    """Whether the process had been there for a while before."""

    @cached_property
    def risen_bytes(self) -> int:
        """The rises alone: a full collection frees what is not of this span."""
        risen_bytes = lowest_bytes = highest_bytes = 0
        for at, level_bytes in enumerate(self.levels):
            if at == 0 or level_bytes < highest_bytes - _LEVEL_NOISE_BYTES:
                risen_bytes += highest_bytes - lowest_bytes
                lowest_bytes = highest_bytes = level_bytes
            highest_bytes = max(highest_bytes, level_bytes)
        return risen_bytes + highest_bytes - lowest_bytes

    @property
    def net_bytes(self) -> int:
        """The last level less the lowest one: a full collection frees what is older, too."""
        return self.levels[-1] - min(self.levels) if self.levels else 0


class HeapLevels:
    """The levels of the heaps of a worker's processes in the last two minutes, and their runs.

    A level is read between two runs, after a collection of the young objects. What is said is of
    steps that are over, so it is worked out once in a step. Bounded: when there is a new process,
    those that were silent for as long are forgotten, and if there are many, those that were for
    longest.
    """

    def __init__(self) -> None:
        self._steps: OrderedDict[int, deque[_Step]] = OrderedDict()
        self._known: dict[int, list[_Span]] = {}
        self.newest = 0
        """The number of the step that is not over."""

    def ran(self, pid: int, time_ns: int, task: str) -> None:
        """Counts a run."""
        self._step(pid, time_ns).runs[task] += 1

    def level(self, pid: int, time_ns: int, level_bytes: int) -> None:
        """Adds the level of a process."""
        step = self._step(pid, time_ns)
        if step.level_bytes is None or level_bytes < step.level_bytes:
            step.level_bytes, step.runs_before = level_bytes, step.runs.copy()

    def growth(self, task: str) -> Growth | None:
        """Growth during the latest runs of a task; ``None`` where it is known of less than half."""
        spans = [growth for steps in _SPANS if (growth := self._growth(task, steps)) is not None]
        if not spans:
            return None
        return spans[0]._replace(stood_still=len(spans) == len(_SPANS) and spans[-1].is_none)

    def _growth(self, task: str, steps: int) -> Growth | None:
        spans = self._spans(steps)
        its = [span for span in spans if span.runs[task] > 0]
        runs = sum(span.runs[task] for span in its)
        if runs < _GROWTH_RUNS or sum(span.missed[task] for span in spans) > runs:
            return None
        risen_bytes = sum(span.risen_bytes for span in its)
        return Growth(risen_bytes, len(its) * _LEVEL_NOISE_BYTES, runs)

    def processes(self) -> int:
        """Of how many processes anything is kept."""
        return len(self._steps)

    def running(self) -> set[str]:
        """The tasks that ran in the last half minute."""
        spans = self._spans(_SPANS[0])
        return {task for span in spans for part in (span.runs, span.missed) for task in part}

    def lately(self, steps: int = _SPANS[0]) -> tuple[int, Counter[str]]:
        """Net growth in bytes of the last steps, and the runs meanwhile, by task.

        Less what may be noise, and without the first steps of each process, in which it warms up.
        """
        spans = [span for span in self._spans(steps) if span.is_warm]
        runs: Counter[str] = Counter()
        for span in spans:
            runs.update(span.runs)
        growth_bytes = sum(span.net_bytes for span in spans) - len(spans) * _LEVEL_NOISE_BYTES
        return max(growth_bytes, 0), runs

    def clear(self) -> None:
        """Removes everything."""
        self._steps.clear()
        self._known.clear()
        self.newest = 0

    def _step(self, pid: int, time_ns: int) -> _Step:
        number = time_ns // _STEP_NS
        if number < self.newest - _STEPS_MAX:
            self.clear()  # the clock was set back, or a time was damaged
        if number > self.newest:
            self.newest = number
            self._known.clear()
        steps = self._steps.get(pid)
        if steps is None:
            self._forget()
            steps = self._steps[pid] = deque(maxlen=_STEPS_MAX + _WARM_UP_STEPS + 2)
        if not steps or steps[-1].number < number:
            self._steps.move_to_end(pid)
            steps.append(_Step(number))
        return steps[-1]

    def _forget(self) -> None:
        """Makes room for one more process."""
        while self._steps:
            pid, steps = next(iter(self._steps.items()))
            silent = not steps or steps[-1].number < self.newest - _STEPS_MAX
            if not silent and len(self._steps) < _PROCESSES_MAX:
                return
            del self._steps[pid]

    def _spans(self, count: int) -> list[_Span]:
        if count not in self._known:
            since = self.newest - 1 - count
            self._known[count] = [
                _span([step for step in steps if step.number < self.newest], since)
                for steps in self._steps.values()
            ]
        return self._known[count]


def _span(steps: list[_Step], since: int) -> _Span:
    """From the last level at or before ``since``, or the first one after it, to the last one."""
    known = [at for at, step in enumerate(steps) if step.level_bytes is not None]
    before = [at for at in known if steps[at].number <= since]
    known = known[max(len(before) - 1, 0) :]
    runs: Counter[str] = Counter()
    if len(known) > 1:
        for step in steps[known[0] : known[-1]]:
            runs.update(step.runs)
        runs.subtract(steps[known[0]].runs_before)
        runs.update(steps[known[-1]].runs_before)
    missed: Counter[str] = Counter()
    for step in steps:
        if step.number > since:
            missed.update(step.runs)
    missed = +(missed - runs)
    levels = tuple(level for at in known if (level := steps[at].level_bytes) is not None)
    if len(known) < 2:
        return _Span((), runs, missed)
    return _Span(levels, runs, missed, steps[known[0]].number >= steps[0].number + _WARM_UP_STEPS)


@dataclass
class Withheld:
    """What samples of a task that is not known to keep anything have shown, and nobody was told.

    A leak in one run of a hundred is in one sample of a hundred, and looks like that. So what is
    withheld is added up, and told once it is much and more than chance makes of samples of such
    sizes: two that happened before a large message are not enough.
    """

    sizes: _Sizes = field(default_factory=_Sizes)
    blocks: int = 0

    def told(self, record: RunRetained, kept: Kept | None) -> RunRetained:
        """The record as it is to be told: what it and those before it have shown, or nothing."""
        if record.heap_bytes is None or record.warm_up:
            return record
        self.sizes.add(record.heap_bytes)
        self.blocks += record.blocks
        by_chance_bytes = _WITHHELD_ERRORS * math.sqrt(self.sizes.squares)
        is_much = self.sizes.total_bytes > max(_WITHHELD_MOST_BYTES, by_chance_bytes)
        if not is_much and (kept is None or not kept.bytes_per_run):
            return record._replace(heap_bytes=0, blocks=0)
        told = record._replace(heap_bytes=self.sizes.total_bytes, blocks=self.blocks)
        self.sizes, self.blocks = _Sizes(), 0
        return told


def _least_first(kept: Kept) -> tuple[float, float]:
    known = kept.bytes_per_run is not None and kept.runs >= _SAMPLES
    return (kept.bytes_per_run or 0.0) if known else math.inf, kept.most_bytes


@dataclass
class TaskTotal:
    """Sums over runs of one task, in bytes."""

    runs: int = 0
    left_behind: LeftBehind = field(default_factory=LeftBehind)
    withheld: Withheld = field(default_factory=Withheld)
    peak_bytes: int | None = None
    """The highest RSS in a run, above RSS at its start; ``None`` if no run had a peak."""
    largest_bytes: int | None = None
    """By how much RSS has grown in the run in which it grew most."""
    has_warmed_up: bool = False
    """Whether it was sampled while the worker warmed up."""
    traced_runs: int = 0
    traced_bytes: int = 0
    not_traced: WhyNotTraced = WhyNotTraced.TRACED
    """By what the process said of it that spoke last."""


class TaskTotals:
    """Totals by task name; the caller bounds the names."""

    def __init__(self, warm_up_s: float = 0.0) -> None:
        """``warm_up_s``: in so many first seconds of a worker tasks fill their caches."""
        self._warm_up_ns = int(warm_up_s * 1e9)
        self._totals: dict[str, TaskTotal] = {}
        self._levels = HeapLevels()
        self._began_ns: int | None = None
        """When the first run ended."""
        self._unexplained: tuple[int, float, Counter[str]] = (-1, 0.0, Counter())
        """When it was worked out, as the number of a step; what of the growth the samples do not
        explain, in bytes; and the runs meanwhile."""

    def finished(self, task: str, record: TaskFinished) -> None:
        """Counts a run that had its process to itself."""
        total = self._total(task)
        total.runs += 1
        total.largest_bytes = max(total.largest_bytes or 0, record.rss_delta_bytes)
        if record.rss_peak_bytes is not None:
            total.peak_bytes = max(total.peak_bytes or 0, record.rss_peak_bytes)
        if record.traced_delta_bytes is not None:
            total.traced_runs += 1
            total.traced_bytes += record.traced_delta_bytes
        self._levels.ran(record.pid, record.time_ns, task)
        self.warms_up(record.time_ns)

    def left_behind(self, task: str, record: RunRetained) -> RunRetained | None:
        """Adds what a sampled run left behind, by the process's counters.

        Returns what is to be told of it; ``None`` if it does not count.
        """
        if record.level_bytes is not None:
            self._levels.level(record.pid, record.time_ns, record.level_bytes)
        if self.warms_up(record.time_ns):
            record = record._replace(warm_up=1)
            self._total(task).has_warmed_up = True
        total = self._total(task)
        if not total.left_behind.add(record):
            return None
        return total.withheld.told(record, self._kept(task))

    def not_traced(self, task: str, reason: str) -> None:
        """Notes why runs of a task are not traced; an unknown reason is none."""
        known = reason in [each.value for each in WhyNotTraced]
        self._total(task).not_traced = WhyNotTraced(reason) if known else WhyNotTraced.TRACED

    def kept(self, task: str) -> Kept | None:
        """What a run of a task keeps by the counters; ``None`` while nothing is known of it.

        No site of the task may claim more. Without a name: the least that a run of any task keeps
        that runs now, and so the most that is kept by code that all of them run.
        """
        if task:
            return self._kept(task)
        names = self._levels.running()
        every = [kept for name in names if (kept := self._kept(name)) is not None]
        return min(every, key=_least_first, default=None)

    def _kept(self, task: str) -> Kept | None:
        total = self._totals.get(task)
        kept = None if total is None else total.left_behind.kept()
        growth = self._levels.growth(task)
        if kept is None and total is not None and total.has_warmed_up:
            return _WARMED_UP
        if total is None or kept is None:
            return None if growth is None else _UNKNOWN.within(growth)
        unexplained_bytes, runs = self._not_explained()
        if unexplained_bytes and runs[task]:
            likely_bytes = total.left_behind.likely_bytes()
            kept = kept.of_unexplained(unexplained_bytes / runs[task], likely_bytes)
        return kept if growth is None else kept.within(growth)

    def largest(self, count: int) -> list[tuple[str, TaskTotal, Kept | None]]:
        """The tasks whose runs left most behind in all: totals, and what a run keeps."""
        found = [(name, total, self._kept(name)) for name, total in self._totals.items()]

        def in_all(each: tuple[str, TaskTotal, Kept | None]) -> tuple[float, str]:
            name, total, kept = each
            return -((kept.bytes_per_run if kept else None) or 0.0) * total.runs, name

        return sorted(found, key=in_all)[:count]

    def clear(self) -> None:
        """Starts again at zero."""
        self._totals.clear()
        self._levels.clear()
        self._unexplained = (-1, 0.0, Counter())

    def warms_up(self, time_ns: int) -> bool:
        """Whether the worker's tasks fill their caches then. The first time is when they begin."""
        if self._began_ns is None:
            self._began_ns = time_ns
        return self.warm_up_left_s(time_ns) > 0

    def warm_up_left_s(self, time_ns: int) -> float:
        """For how many seconds they still do."""
        began_ns = time_ns if self._began_ns is None else self._began_ns
        if time_ns < began_ns:  # the clock was set back
            return 0.0
        return max(began_ns + self._warm_up_ns - time_ns, 0) / 1e9

    def _total(self, task: str) -> TaskTotal:
        total = self._totals.get(task)
        if total is None:
            total = self._totals[task] = TaskTotal()
        return total

    def _not_explained(self) -> tuple[float, Counter[str]]:
        """What the heaps have grown by lately, less what the samples say of the runs meanwhile."""
        known, left_bytes, runs = self._unexplained
        if known == self._levels.newest:
            return left_bytes, runs
        left_bytes, runs = self._left_unexplained(_SPANS[0])
        # What goes on is a leak; a message that happened to be in memory, or warm-up, does not.
        before_bytes, _ = self._left_unexplained(_SPANS[1])
        left_bytes = min(left_bytes, before_bytes * _SPANS[0] / _SPANS[1])
        self._unexplained = (self._levels.newest, left_bytes, runs)
        return left_bytes, runs

    def _left_unexplained(self, steps: int) -> tuple[float, Counter[str]]:
        growth_bytes, runs = self._levels.lately(steps)
        left_bytes = float(growth_bytes)
        for task, count in runs.items():
            total = self._totals.get(task)
            kept = total.left_behind.kept() if total else None
            left_bytes -= max((kept.bytes_per_run if kept else None) or 0.0, 0.0) * count
        if left_bytes <= max(growth_bytes * _UNEXPLAINED_SHARE, _UNEXPLAINED_LEAST_BYTES):
            left_bytes = 0.0
        return left_bytes, runs
