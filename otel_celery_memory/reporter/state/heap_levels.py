"""By how much the heaps of a worker's processes have grown, and who ran meanwhile."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

_STEP_NS = 5 * 10**9
_STEPS_MAX = 24
_WARM_UP_STEPS = 6
SPANS = (6, 12, _STEPS_MAX)
"""Over so many steps growth is looked at: the first that has enough runs."""
_GROWTH_RUNS = 20
_PROCESSES_MAX = 512
_LEVEL_NOISE_BYTES = 2 << 10
"""So much two levels of a heap that does not grow may differ: they are read before other runs."""


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
        spans = [growth for steps in SPANS if (growth := self._growth(task, steps)) is not None]
        if not spans:
            return None
        return spans[0]._replace(stood_still=len(spans) == len(SPANS) and spans[-1].is_none)

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
        spans = self._spans(SPANS[0])
        return {task for span in spans for part in (span.runs, span.missed) for task in part}

    def lately(self, steps: int = SPANS[0]) -> tuple[int, Counter[str]]:
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
