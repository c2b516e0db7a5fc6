"""Bets against "it does not grow": evidence that stays right however often one looks.

An *e-value* is what a gambler has who began with 1 and could not win on average if nothing grew.
Having a million is then as unlikely as 1 in a million, at whatever moment one looks (Ville's
inequality; Ramdas, Grünwald, Vovk and Shafer 2023, "Game-theoretic statistics and safe
anytime-valid inference"). Bounds of a mean are asymptotic confidence sequences (Waudby-Smith,
Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit theory").
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

from otel_celery_memory.leaks.verdict import Interval

MOST_WEALTH = 1e60
"""Where wealth is cut off: more says nothing, and a float has an end."""
_ALPHA = 0.05
_NARROWEST_AT = 50
"""The number of values for which a confidence sequence is narrowest."""
_RHO_SQUARED = (-2 * math.log(_ALPHA) + math.log(-2 * math.log(_ALPHA) + 1)) / _NARROWEST_AT


class RestartedBets:
    """Several bets side by side, each begun anew at every moment: a Shiryaev-Roberts e-detector.

    The sum over all beginnings, as a change may begin at any moment. If nothing grows it takes at
    least ``c`` moments on average until the sum is ``c`` (Shin, Ramdas and Rinaldo 2023,
    "E-detectors: a nonparametric framework for sequential change detection").
    """

    def __init__(self, bets: int) -> None:
        self.wealth = [0.0] * bets
        self.evidence = 0.0

    def add(self, factors: Sequence[float]) -> None:
        """What each bet's wealth is multiplied by; on average at most 1 if nothing grows."""
        self.wealth = [
            min(MOST_WEALTH, (wealth + 1.0) * factor)
            for wealth, factor in zip(self.wealth, factors, strict=True)
        ]
        self.evidence = sum(self.wealth) / len(self.wealth)

    def forget(self) -> None:
        """Begins anew."""
        self.restore([0.0] * len(self.wealth))

    def restore(self, wealth: Sequence[float]) -> None:
        """Takes up what each bet had."""
        if len(wealth) != len(self.wealth):
            raise ValueError("as many bets as before are wanted")
        self.wealth = [min(MOST_WEALTH, max(0.0, float(each))) for each in wealth]
        self.evidence = sum(self.wealth) / len(self.wealth)


class RankBets:
    """Bets that each value is among the highest so far: wins if the values are not exchangeable.

    A conformal test martingale (Vovk, Nouretdinov and Gammerman 2003): whatever the values'
    distribution, the rank of the newest is as likely to be any as any other if their order means
    nothing. Ties count as low ranks. After ``most`` values ranks begin anew, so it is bounded.
    """

    _BETS = ((0.5, 0.8), (0.25, 0.75), (0.1, 0.5))
    """Each bets a part of its wealth (the second) on a rank within the upper share (the first)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.values: list[float] = []
        self.bets = RestartedBets(len(self._BETS))

    def add(self, value: float) -> None:
        """The next value."""
        if len(self.values) >= self._most:
            self.values.clear()
        count = len(self.values) + 1
        rank = count - bisect_left(self.values, value)
        self.bets.add([self._factor(share, part, rank, count) for share, part in self._BETS])
        insort(self.values, value)

    @staticmethod
    def _factor(share: float, part: float, rank: int, count: int) -> float:
        places = int(share * count)
        if not places:
            return 1.0
        return 1.0 - part + (part * count / places if rank <= places else 0.0)

    def forget(self) -> None:
        """Begins anew."""
        self.values.clear()
        self.bets.forget()

    def state(self) -> list[Any]:
        """What it knows, for JSON."""
        return [self.values, self.bets.wealth]

    def restore(self, state: Sequence[Any]) -> None:
        """Takes up what ``state`` returned."""
        values, wealth = state
        self.values = sorted(map(float, values))
        self.bets.restore(wealth)


class IncreaseBets:
    """Bets that the next increase is positive: wins unless increases are as often falls, as large.

    An increase counts as a share of a scale that is known before it comes, and at most as 1 or -1
    (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"). The
    scale is at least the deepest fall below an earlier height that is remembered: what went up and
    came down again has to go higher than that to count.
    """

    _PARTS = (0.9, 0.5, 0.2)
    _USUAL_SHARE = 0.7
    _NEWEST = 1 / 8

    def __init__(self, kept: float) -> None:
        """``kept`` is the share of the memory of a fall that is left after one more value."""
        self._kept = kept
        self.usual: float | None = None
        self.below = 0.0
        self.fall = 0.0
        self.bets = RestartedBets(len(self._PARTS))

    def add(self, increase: float) -> None:
        """The next increase, which a fall is, too, below 0."""
        if increase:
            share = self._share(increase)
            self.bets.add([1.0 + part * share for part in self._PARTS])
        size = abs(increase)
        usual = size if self.usual is None else self.usual
        self.usual = usual + self._NEWEST * (min(size, 4 * usual or size) - usual)
        self.below = max(0.0, self.below * self._kept - increase)
        self.fall = max(self.fall * self._kept, self.below)

    def _share(self, increase: float) -> float:
        scale = max(self.fall, self._USUAL_SHARE * (self.usual or 0.0))
        if scale <= 0.0:
            return math.copysign(1.0, increase)
        return max(-1.0, min(1.0, increase / scale))

    def forget(self) -> None:
        """Begins anew, but remembers how deep falls are."""
        self.bets.forget()

    def state(self) -> list[Any]:
        """What it knows, for JSON."""
        return [self.usual, self.below, self.fall, self.bets.wealth]

    def restore(self, state: Sequence[Any]) -> None:
        """Takes up what ``state`` returned."""
        usual, below, fall, wealth = state
        self.usual = None if usual is None else float(usual)
        self.below, self.fall = float(below), float(fall)
        self.bets.restore(wealth)


def mean_interval(mean: float, deviation: float, count: float) -> Interval:
    """A mean of ``count`` values with bounds that hold at all times together, at 95 %."""
    if count < 2 or not math.isfinite(deviation):
        return Interval(mean, -math.inf, math.inf)
    spread = count * _RHO_SQUARED
    width = math.sqrt((1 + 1 / spread) * math.log((spread + 1) / _ALPHA**2) / count) * deviation
    return Interval(mean, mean - width, mean + width)


def accused(evidence: Sequence[float], alpha: float = _ALPHA) -> float:
    """The least e-value that counts among so many, by e-BH; infinity if none does.

    Of those that have it at most a share of ``alpha`` is innocent on average, whatever depends on
    what (Wang and Ramdas 2022, "False discovery rate control with e-values").
    """
    ranked = sorted(evidence, reverse=True)
    least = math.inf
    for number, value in enumerate(ranked, start=1):
        if value * number * alpha >= len(ranked):
            least = value
    return least
