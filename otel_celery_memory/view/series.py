"""What is kept of numbers over time, whatever comes: a bounded series, and sums for an interval.

Pure but for what they keep; no clock.
"""

from __future__ import annotations

import math
from array import array

POINTS_MAX = 240
"""Points of a series: enough for a plot as wide as a page."""
_BATCHES_MIN = 8
_QUANTILE = 2.2
"""Of Student's t for 95 % and a dozen batches."""


class Series:
    """The whole time at an even density: when it is full, every second point goes.

    The newest value is always the last point, however close it is to the one before.
    """

    def __init__(self, points_max: int = POINTS_MAX) -> None:
        self._points_max = points_max
        self._spacing_s = 0.0
        self.times_s = array("d")
        self.values = array("d")

    def append(self, time_s: float, value: float) -> None:
        """Adds a value. One that is older than the last is left out."""
        times = self.times_s
        if times and time_s < times[-1]:
            return
        if len(times) > 1 and time_s - times[-2] < self._spacing_s:
            times[-1], self.values[-1] = time_s, value
            return
        times.append(time_s)
        self.values.append(value)
        if len(times) > self._points_max:
            self._spacing_s = max(
                2 * self._spacing_s, 2 * (times[-1] - times[0]) / self._points_max
            )
            self.times_s, self.values = times[::2], self.values[::2]

    def __len__(self) -> int:
        return len(self.times_s)


class Batches:
    """A mean of a run from sums that come in batches, with an interval for it.

    Each export is a batch: so many runs, and what they kept together. From how the batches differ
    follows how sure the mean of a run is (the ratio estimator's variance).
    """

    def __init__(self) -> None:
        self._batches = 0
        self.runs = 0.0
        self.total = 0.0
        self._runs_squared = self._total_squared = self._product = 0.0

    def add(self, runs: float, total: float) -> None:
        """Adds one batch; of no runs it says nothing."""
        if runs <= 0:
            return
        self._batches += 1
        self.runs += runs
        self.total += total
        self._runs_squared += runs * runs
        self._total_squared += total * total
        self._product += runs * total

    def interval(self) -> tuple[float, float] | None:
        """Low and high of the mean, at 95 %; ``None`` while there are too few batches."""
        if self._batches < _BATCHES_MIN:
            return None
        mean = self.total / self.runs
        squares = self._total_squared - 2 * mean * self._product + mean * mean * self._runs_squared
        mean_runs = self.runs / self._batches
        variance = max(squares, 0.0) / (self._batches * (self._batches - 1)) / mean_runs**2
        margin = _QUANTILE * math.sqrt(variance)
        return mean - margin, mean + margin
