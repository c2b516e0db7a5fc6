"""Finds the tasks that leave something behind, and how much of a growth each of them explains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from otel_celery_memory.leaks.betting import accused, mean_interval
from otel_celery_memory.leaks.verdict import Interval

KIB = 1024
ALPHA = 0.05
"""The share of tasks that may be innocent among those accused, at most, on average."""
_CLIPS = (256.0, 2 * KIB, 16 * KIB, 128 * KIB, 1024 * KIB, 16_384.0 * KIB)
"""A run counts as if it had left at most so much."""
_STAKES = ((0.5, 64.0), (8.0, 1024.0))
"""What a bet wins by a run that left all that counts, and after how many samples half is forgotten.
The first wins by a leak in every run, the second by one in a hundred."""
_BETS = tuple((clip, stake, half) for clip in _CLIPS for stake, half in _STAKES)
_MOST_LOG = 13.0
"""Where the logarithm of a bet's wealth is cut off, so that it is soon lost when a leak ends."""
_LEAST_FACTOR = 0.05
_HALF_LIFE = 512.0
_KEPT = 0.5 ** (1 / _HALF_LIFE)
_RECENT_KEPT = 0.5 ** (1 / 64)
_RECENT_SHARE = 0.05
"""Who has left less of late than this share of its mean has stopped: a cache that is full."""
_FAILED_SHARE = 0.9
_LEAST_SAMPLES = 5.0
_TOO_MUCH = 2.0
_LEAST_SHARE = 0.05
"""Who explains less than this of a growth is not worth a word."""


class _Mean:
    """A mean that forgets, and in which the largest value counts no more than the next largest.

    What is given back counts in full. The largest value and the deepest fall are held apart: if one
    makes up for the other, neither says anything.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self.total = 0.0
        self.squares = 0.0
        self.largest = 0.0
        self.second = 0.0
        self.deepest = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.weight = self.weight * _KEPT + 1.0
        self.total *= _KEPT
        self.squares *= _KEPT
        self.largest *= _KEPT
        self.second *= _KEPT
        self.deepest *= _KEPT
        if value > self.largest:
            value, self.largest = self.largest, value
        elif value < self.deepest:
            value, self.deepest = self.deepest, value
        self.second = max(self.second, value)
        self.total += value
        self.squares += value * value

    def _held(self) -> float:
        return min(self.second, self.largest + self.deepest)

    @property
    def sum(self) -> float:
        """Of all values that are not forgotten."""
        return self.total + self._held()

    def interval(self) -> Interval:
        """The mean with bounds."""
        if self.weight <= 0:
            return Interval(0.0, -math.inf, math.inf)
        mean = self.sum / self.weight
        squares = self.squares + self._held() ** 2
        variance = max(0.0, squares / self.weight - mean * mean)
        return mean_interval(mean, math.sqrt(variance), self.weight)

    def state(self) -> list[float]:
        """What it knows, for JSON."""
        return [
            *(self.weight, self.total, self.squares),
            *(self.largest, self.second, self.deepest),
        ]

    def restore(self, state: list[float]) -> None:
        """Takes up what ``state`` returned."""
        self.weight, self.total, self.squares, *rest = map(float, state)
        self.largest, self.second, self.deepest = rest


class TaskEvidence:
    """What is known of one task: how much its runs leave behind, and how sure that is.

    The e-value is of "on average a run leaves no more than ``least``", a mixture of bets on values
    that are cut off at several heights, so that one run of any size says little. What is old is
    forgotten: after some hundred samples a cache that has filled up is no evidence.
    """

    def __init__(self) -> None:
        self._logs = [0.0] * len(_BETS)
        self._fall = 0.0
        self._recent = 0.0
        self._of_failed = _Mean()
        self._of_others = _Mean()
        self._all = _Mean()
        self.samples = 0

    def add(self, retained: float, least: float, failed: bool = False) -> None:
        """One sampled run: what was there at the next run's start and not at its own.

        ``least`` is what cannot be told from nothing. What is not a number is left out.
        """
        if not (math.isfinite(retained) and math.isfinite(least)):
            return
        self.samples += 1
        self._recent = self._recent * _RECENT_KEPT + retained * (1 - _RECENT_KEPT)
        self._all.add(retained)
        (self._of_failed if failed else self._of_others).add(retained)
        most = 0.5 / (least + self._fall) if least + self._fall > 0 else math.inf
        self._logs = [
            self._after(log, min(retained, clip) - least, min(stake / clip, most), half_life)
            for log, (clip, stake, half_life) in zip(self._logs, _BETS, strict=True)
        ]
        self._fall = max(self._fall * _KEPT, -retained)

    @staticmethod
    def _after(log: float, won: float, stake: float, half_life: float) -> float:
        """A bet's wealth after one more value. A power below 1 of an e-value is one, too.

        A fall that is deeper than was reckoned with takes all that was won.
        """
        factor = 1.0 + stake * won
        if factor < _LEAST_FACTOR:
            return min(0.0, log) + math.log(_LEAST_FACTOR)
        kept: float = 0.5 ** (1 / half_life)
        return min(_MOST_LOG, log * kept + math.log(factor))

    @property
    def e_value(self) -> float:
        """How much is against "it leaves nothing": 10,000 is as unlikely as 1 in 10,000."""
        return sum(map(math.exp, self._logs)) / len(self._logs)

    @property
    def mean(self) -> Interval:
        """How much a run leaves behind, at 95 %, whenever one looks."""
        return self._all.interval()

    @property
    def mean_of_failed(self) -> Interval:
        """How much a run that failed leaves behind."""
        return self._of_failed.interval()

    @property
    def goes_on(self) -> bool:
        """Whether its latest runs still leave something behind."""
        return self._recent > _RECENT_SHARE * self.mean.middle

    @property
    def only_if_failed(self) -> bool:
        """Whether nearly all of it is left by runs that failed, while others ran too."""
        failed, others = self._of_failed, self._of_others
        if failed.weight < _LEAST_SAMPLES or others.weight < _LEAST_SAMPLES:
            return False
        total = failed.sum + max(0.0, others.sum)
        often = failed.weight / (failed.weight + others.weight)
        return failed.sum >= _FAILED_SHARE * total > 0 and often < _FAILED_SHARE

    def state(self) -> dict[str, Any]:
        """Everything that it knows, for JSON."""
        return {
            "logs": self._logs,
            "fall": self._fall,
            "recent": self._recent,
            "samples": self.samples,
            "means": [self._all.state(), self._of_failed.state(), self._of_others.state()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what ``state`` returned.

        Raises ``ValueError``, ``TypeError`` or ``KeyError`` for what it did not return.
        """
        logs = [min(_MOST_LOG, float(each)) for each in state["logs"]]
        if len(logs) != len(_BETS):
            raise ValueError("as many bets as before are wanted")
        self._logs, self._fall = logs, float(state["fall"])
        self._recent = float(state["recent"])
        self.samples = int(state["samples"])
        means = (self._all, self._of_failed, self._of_others)
        for mean, kept in zip(means, state["means"], strict=True):
            mean.restore(kept)


@dataclass(frozen=True)
class Share:
    """What one task explains of a growth. ``rate`` is by run, ``amount`` by all of its runs."""

    task: str
    share: float
    amount: float
    rate: Interval
    condition: str = ""


@dataclass(frozen=True)
class Attribution:
    """A growth, taken apart. Shares and ``unexplained`` add up to 1, the largest share first.

    ``given_back`` are tasks that leave more behind than anything has grown: what they leave is
    freed elsewhere, as garbage is, so they are not accused.
    """

    shares: tuple[Share, ...] = ()
    unexplained: float = 1.0
    given_back: frozenset[str] = field(default_factory=frozenset)


def attribute(
    grown: float,
    runs: Mapping[str, int],
    evidence: Mapping[str, TaskEvidence],
    alpha: float = ALPHA,
) -> Attribution:
    """Takes a growth apart by task.

    ``grown`` and ``runs`` are of the same time and the same processes; ``runs`` are all that ended,
    sampled or not. Of the tasks that are accused at most a share of ``alpha`` is innocent on
    average, however many tasks there are.
    """
    if not grown > 0:
        return Attribution()
    e_values = {task: each.e_value for task, each in evidence.items()}
    least = accused(list(e_values.values()), alpha)
    parts: dict[str, float] = {}
    given_back = set()
    for task, e_value in e_values.items():
        mean, count = evidence[task].mean, runs.get(task, 0)
        if e_value < least or mean.middle <= 0 or count <= 0 or not evidence[task].goes_on:
            continue
        if mean.low * count > _TOO_MUCH * grown:
            given_back.add(task)
        elif mean.middle * count >= _LEAST_SHARE * grown:
            parts[task] = mean.middle * count
    whole = max(grown, sum(parts.values()))
    shares = [
        Share(task, part / whole, part, evidence[task].mean, _condition(evidence[task]))
        for task, part in sorted(parts.items(), key=lambda item: -item[1])
    ]
    unexplained = max(0.0, 1.0 - sum(each.share for each in shares))
    return Attribution(tuple(shares), unexplained, frozenset(given_back))


def _condition(evidence: TaskEvidence) -> str:
    return "in runs that fail" if evidence.only_if_failed else ""
