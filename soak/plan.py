"""When each fault is injected, counted in tasks. Pure, and the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from soak.collector import Trouble

_FULL_TASKS_MIN = 1_200
"""Of the phase with full rings: half of them fill the least rings of two children."""
_STOPPED_TASKS_MAX = 2_000
"""In a window with full rings: a reporter that hangs for half a minute is replaced."""


class Fault(Enum):
    """Kinds of faults; the end of one that lasts is a kind too."""

    KILL_CHILD = "SIGKILL to a child"
    KILL_REPORTER = "SIGKILL to the reporter"
    COLLECTOR = "Collector in trouble"
    RING_FULL = "full rings"
    RING_FREE = "rings free again"


@dataclass(frozen=True)
class Injection:
    """A fault, due when so many tasks of its phase have started."""

    at: int
    fault: Fault
    trouble: Trouble = Trouble.NONE


@dataclass(frozen=True)
class Phase:
    """A part of the run, whose tasks are all done before the next one begins."""

    name: str
    tasks: int
    injections: tuple[Injection, ...]
    rate_per_s: float = 0.0
    """The highest rate of tasks; 0 is no limit."""


@dataclass(frozen=True)
class Scale:
    """How large a run is."""

    tasks: int
    kill_every: int
    reporter_kills: int
    troubles: int
    """Windows of trouble in the first phase: two thirds of its tasks, a third of all."""

    def phases(self, seed: int = 1) -> list[Phase]:
        """Children killed, and: the Collector in trouble; full rings; the reporter killed."""
        chance = random.Random(seed)
        part = self.tasks // 10
        kills = self._child_kills(chance, 5 * part)
        troubles = self._troubles(5 * part)
        first = Phase("children killed, Collector in trouble", 5 * part, _ordered(kills + troubles))
        tasks = max(part, _FULL_TASKS_MIN)
        stopped = min(tasks // 2, _STOPPED_TASKS_MAX)
        kills = self._child_kills(chance, tasks)
        full = [
            Injection(tasks // 4, Fault.RING_FULL),
            Injection(tasks // 4 + stopped, Fault.RING_FREE),
        ]
        second = Phase("children killed, full rings", tasks, _ordered(kills + full))
        rest = max(self.tasks - 5 * part - tasks, part)
        step = rest // (self.reporter_kills + 1) if self.reporter_kills else rest
        reporter = [
            Injection(step * (number + 1), Fault.KILL_REPORTER)
            for number in range(self.reporter_kills)
        ]
        kills = self._child_kills(chance, rest)
        # A reporter is started again at once only if it lived for ten seconds.
        rate = step / 12 if self.reporter_kills > 1 else 0.0
        third = Phase("children and reporter killed", rest, _ordered(kills + reporter), rate)
        return [first, second, third]

    def _child_kills(self, chance: random.Random, tasks: int) -> list[Injection]:
        return [
            Injection(start + chance.randrange(self.kill_every), Fault.KILL_CHILD)
            for start in range(0, tasks - self.kill_every + 1, self.kill_every)
        ]

    def _troubles(self, tasks: int) -> list[Injection]:
        modes = [each for each in Trouble if each is not Trouble.NONE]
        length = tasks * 2 // 3 // self.troubles
        found = []
        for number in range(self.troubles):
            at = (2 * number + 1) * tasks // (2 * self.troubles) - length // 2
            found.append(Injection(at, Fault.COLLECTOR, modes[number % len(modes)]))
            found.append(Injection(at + length, Fault.COLLECTOR))
        return found


def _ordered(injections: list[Injection]) -> tuple[Injection, ...]:
    return tuple(sorted(injections, key=lambda each: each.at))
