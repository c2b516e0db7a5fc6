"""What is made of measurements: ratios with their intervals, percentiles, and what can be told.

A machine that slows down slows all variants of a round, so ratios are of costs within rounds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 2_000
TELLS = 0.01
"""Half of an interval, as a share of bare, with which a difference of one per cent can be told."""

Pairs = Sequence[tuple[float, float]]
"""Costs of a variant and of bare, in one round."""


@dataclass(frozen=True)
class Ratio:
    """A ratio to bare, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """How far the interval reaches to each side, about."""
        return (self.high - self.low) / 2

    @property
    def tells(self) -> bool:
        """Whether a difference of one per cent would be seen."""
        return self.half <= TELLS


def ratio(pairs: Pairs) -> float:
    """Ratio of the sums, not a median: an export is in few of the batches, and counts."""
    return sum(ours for ours, _ in pairs) / sum(bare for _, bare in pairs)


def interval(pairs: Pairs) -> tuple[float, float]:
    """The 95 % interval of the ratio, by drawing rounds again (bootstrap)."""
    chance = random.Random(1)
    drawn = sorted(ratio(chance.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]


def ratio_of(pairs: Pairs) -> Ratio:
    """The ratio with its interval."""
    return Ratio(ratio(pairs), *interval(pairs))


def noise(bare_again: Ratio) -> str:
    """What can be told of differences, by a second bare worker that should be equal to the first.

    Neither its interval nor its distance from 1 has to do with any instrumentation.
    """
    off = max(bare_again.half, abs(bare_again.value - 1))
    if off <= TELLS:
        return f"differences of 1 % can be told: bare again is {bare_again.value:.3f} of bare"
    told = math.ceil(round(off * 100, 6))
    return (
        f"TOO NOISY to tell 1 %: bare again is {bare_again.value:.3f} of bare "
        f"({bare_again.low:.3f} to {bare_again.high:.3f}); less than {told} % means nothing"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all is not above; the nearest that there is."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
