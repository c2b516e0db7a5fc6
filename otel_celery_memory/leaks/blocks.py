"""Evidence that a level grows, from the least level of each block of steps.

The least level of a block is what is there once garbage is collected and spikes are gone, if the
block is long enough; so blocks of several lengths are watched side by side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from otel_celery_memory.leaks.betting import IncreaseBets, RankBets

STEP_S = 5.0
"""About how long a step is."""
_RANKED = 128
_REMEMBERED = 32
_FALL_HALF_LIFE_S, _FALL_HALF_LIFE_BLOCKS = 3_600.0, 16


class Point(NamedTuple):
    """A level, when it was, and how many runs had ended until then."""

    at_s: float
    level: float
    runs: int


class BlockScale:
    """Evidence from the least level of each block of so many steps."""

    def __init__(self, width: int) -> None:
        self.width = width
        blocks = max(_FALL_HALF_LIFE_S / (width * STEP_S), _FALL_HALF_LIFE_BLOCKS)
        self.ranks = RankBets(_RANKED)
        self.increases = IncreaseBets(0.5 ** (1 / blocks))
        self.points: deque[Point] = deque(maxlen=_REMEMBERED)
        self.onset: Point | None = None
        self.least: Point | None = None
        self.filled = 0
        self.evidence = 0.0

    def add(self, point: Point) -> None:
        """The level after one more step."""
        if self.least is None or point.level < self.least.level:
            self.least = point
        self.filled += 1
        if self.filled < self.width:
            return
        block = self.least
        self.least, self.filled = None, 0
        self.ranks.add(block.level)
        if self.points:
            self.increases.add(block.level - self.points[-1].level)
        self.points.append(block)
        self._weigh()
        if self.onset is None or self.evidence < 1.0:
            self.onset = block

    def _weigh(self) -> None:
        """The lesser of what refutes a plateau and what refutes a random walk."""
        self.evidence = min(self.ranks.bets.evidence, self.increases.bets.evidence)

    def forget(self) -> None:
        """Begins anew, but remembers levels and falls."""
        self.ranks.forget()
        self.increases.forget()
        self._weigh()
        self.onset = None
        self.least, self.filled = None, 0

    def state(self) -> list[Any]:
        """What it knows, for JSON."""
        return [
            *(self.ranks.state(), self.increases.state(), list(self.points)),
            *(self.onset, self.least, self.filled),
        ]

    def restore(self, state: Sequence[Any]) -> None:
        """Takes up what ``state`` returned."""
        ranks, increases, points, onset, least, filled = state
        self.ranks.restore(ranks)
        self.increases.restore(increases)
        self.points.extend(Point(*each) for each in points)
        self.onset = None if onset is None else Point(*onset)
        self.least = None if least is None else Point(*least)
        self.filled = int(filled)
        self._weigh()
