"""The lowest levels of the heaps in a minute and a half, and in one some minutes before.

Garbage that waits for a full collection, as what failed runs leave, may be a hundred times what
leaks in the meantime: no level of a step can be compared with the next one. The lowest of so long
mostly comes after a full collection. It proves nothing by itself, but where samples of runs show
that a task keeps something, the lowest levels say whether that stays.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_WINDOW_STEPS = 18
_STEPS_MAX = 60


class Risen(NamedTuple):
    """By how much the lowest level has risen, from ``since_s`` on."""

    grown: float
    since_s: float


class LowestLevels:
    """The heaps of a worker's processes together, step by step; bounded to 60 steps."""

    def __init__(self) -> None:
        self._level = 0.0
        self._steps: deque[tuple[float, float]] = deque(maxlen=_STEPS_MAX)

    def add(self, time_s: float, grown: float) -> None:
        """The heaps have changed by so much in a step."""
        self._level += grown
        self._steps.append((time_s, self._level))

    def risen(self) -> Risen | None:
        """From the first window that is known to the last one; ``None`` while they overlap."""
        if len(self._steps) < 2 * _WINDOW_STEPS:
            return None
        steps = list(self._steps)
        first = min(steps[:_WINDOW_STEPS], key=lambda step: step[1])
        last = min(steps[-_WINDOW_STEPS:], key=lambda step: step[1])
        return Risen(last[1] - first[1], first[0])

    def clear(self) -> None:
        """Forgets all."""
        self._level = 0.0
        self._steps.clear()
