"""A growth that is being watched: how fast, how evenly, and what full collections say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from otel_celery_memory.leaks.betting import mean_interval
from otel_celery_memory.leaks.blocks import Point
from otel_celery_memory.leaks.verdict import Interval

_LEAST_STRETCHES, _MOST_STRETCHES = 6, 64
_SHORTEST_STEPS = 4


class Stretch(NamedTuple):
    """A part of a suspicion's time."""

    seconds: float
    grown: float
    runs: int


class Suspicion:
    """A growth that is being watched since its onset, as stretches of like length.

    When there are too many, each two neighbours become one.
    """

    def __init__(self, onset: Point, steps_each: int = 1) -> None:
        self.onset = onset
        self.top = onset.level
        self.stretches: list[Stretch] = []
        self.last = onset
        self.steps_each = max(_SHORTEST_STEPS, steps_each)
        self.steps = 0
        self.confirmed = self.freed = 0.0
        """What full collections have found grown, and what they have freed of it."""
        self.floor_at_s = onset.at_s
        """When the last one was; its onset if there was none."""
        self.log_e = 0.0
        self.leaking = False
        self.ended: Point | None = None
        self.why_ended = ""
        self._measure()

    def keeps(self, level: float, share: float) -> bool:
        """Whether so much of the most that it had grown by is still there."""
        return level - self.onset.level >= share * (self.top - self.onset.level)

    def end(self, point: Point, why: str) -> None:
        """It grows no longer."""
        self.ended, self.why_ended, self.leaking = point, why, False

    def floor(self, at_s: float, kept: float, freed: float) -> None:
        """Full collections have kept so much of what had come, and freed so much."""
        self.confirmed += kept
        self.freed += freed
        self.floor_at_s = at_s

    @property
    def covered(self) -> float:
        """How much of the growth full collections have decided about."""
        return self.confirmed + self.freed

    def extend(self, point: Point) -> None:
        """The level after one more step."""
        self.top = max(self.top, point.level)
        self.steps += 1
        if self.steps >= self.steps_each:
            self.stretch(point)

    def expected(self, then: Point, until: Point) -> float | None:
        """How much of this growth between two moments is to be expected, as it began.

        ``None`` if that cannot be said, as no run ended before.
        """
        if until.runs == self.onset.runs:
            share = (until.at_s - then.at_s) / max(1.0, then.at_s - self.onset.at_s)
        elif then.runs > self.onset.runs:
            share = (until.runs - then.runs) / (then.runs - self.onset.runs)
        else:
            return None
        return share * (then.level - self.onset.level)

    def stretch(self, point: Point) -> None:
        """Ends a stretch here."""
        if point.at_s <= self.last.at_s:
            return
        last, self.last, self.steps = self.last, point, 0
        self.stretches.append(
            Stretch(point.at_s - last.at_s, point.level - last.level, point.runs - last.runs)
        )
        if len(self.stretches) >= _MOST_STRETCHES:
            pairs = zip(self.stretches[::2], self.stretches[1::2], strict=True)
            self.stretches = [
                Stretch(a.seconds + b.seconds, a.grown + b.grown, a.runs + b.runs) for a, b in pairs
            ]
            self.steps_each *= 2
        self._measure()

    def _measure(self) -> None:
        """Rates, and how even the growth is. By runs, or by time where there are none."""
        by_run = [(each.grown, float(each.runs)) for each in self.stretches]
        by_second = [(each.grown, each.seconds) for each in self.stretches]
        self.rate, self.rate_per_s = _rate(by_run), _rate(by_second)
        pairs = by_second if self.rate is None else by_run
        self.steadiness, self.lump = _steadiness(pairs), _lump(pairs)

    def state(self) -> list[Any]:
        """What it knows, for JSON."""
        return [
            *(self.onset, self.top, self.stretches, self.last, self.steps_each, self.steps),
            *(self.confirmed, self.freed, self.floor_at_s),
            *(self.log_e, self.leaking, self.ended, self.why_ended),
        ]

    @classmethod
    def restored(cls, state: Sequence[Any]) -> Suspicion:
        """The one that ``state`` told of."""
        onset, top, stretches, last, each, steps, *floors = state[:9]
        log_e, leaking, ended, why_ended = state[9:]
        suspicion = cls(Point(*onset))
        suspicion.top, suspicion.last = float(top), Point(*last)
        suspicion.stretches = [Stretch(*each) for each in stretches]
        suspicion.steps_each, suspicion.steps = int(each), int(steps)
        suspicion.confirmed, suspicion.freed, suspicion.floor_at_s = map(float, floors)
        suspicion.log_e, suspicion.leaking = float(log_e), bool(leaking)
        suspicion.why_ended = str(why_ended)
        suspicion.ended = None if ended is None else Point(*ended)
        suspicion._measure()
        return suspicion


def _rate(pairs: list[tuple[float, float]]) -> Interval | None:
    """Growth by weight, with bounds."""
    weight = sum(w for _, w in pairs)
    if weight <= 0:
        return None
    middle = sum(g for g, _ in pairs) / weight
    count = len(pairs)
    each = weight / count
    square = sum((g - middle * w) ** 2 for g, w in pairs) / max(1, count - 1)
    return mean_interval(middle, math.sqrt(square) / each, count)


def _steadiness(pairs: list[tuple[float, float]]) -> float:
    """The rate of the latest third, as a share of the rate before."""
    total = sum(w for _, w in pairs)
    late, late_weight = 0.0, 0.0
    for grown, weight in reversed(pairs):
        if late_weight + weight > 0.35 * total:
            break
        late += grown
        late_weight += weight
    early, early_weight = sum(g for g, _ in pairs) - late, total - late_weight
    if late_weight <= 0 or early_weight <= 0 or early <= 0:
        return 0.0
    return late / late_weight * early_weight / early


def _lump(pairs: list[tuple[float, float]]) -> float:
    """How large the portions are that it grows by: their variance by their mean."""
    total, weight = sum(g for g, _ in pairs), sum(w for _, w in pairs)
    if total <= 0 or weight <= 0 or len(pairs) < _LEAST_STRETCHES:
        return math.inf
    rate = total / weight
    return sum((g - rate * w) ** 2 for g, w in pairs) / total
