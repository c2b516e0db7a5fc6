"""What sampled runs of a task have left behind, and what a run keeps by all that is known."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from otel_celery_memory.ipc.records import ALIKE_LEAST_BYTES, UNLIKE_LEAST_BYTES, RunRetained
from otel_celery_memory.reporter.state.heap_levels import Growth

_INTERVAL_NS = 10 * 10**9
_INTERVALS_MAX = 40
_LATELY_NS = 50 * 10**9
SAMPLES = 10
_SAMPLES_LEAST = 3
_MANY_SAMPLES, _A_WHOLE_BLOCK_BYTES = 30, 1.1 * ALIKE_LEAST_BYTES
"""Of so many samples a mean of nearly one block is something; of fewer, one of a whole block. What
a process fills for good in its first minutes is a block in some of them, and a leak in each.
"""
_SURE_ERRORS = 2.5
"""Standard errors that a mean must differ from zero by."""
_LIKELY_ERRORS = 1.4
"""Where the heaps have grown by what nobody's samples explain, a mean of so many standard errors is
believed if it explains much of it. One sample alone that shows something makes 1."""
_UNLIKE_SURE_BYTES = 1.5 * UNLIKE_LEAST_BYTES
"""Before runs of other tasks: a buffer of a kibibyte and its object may be there in all of them."""
_SPREAD_LEAST_BYTES = 40.0
"""Samples differ by as much, whatever a few of them say: less than a block."""
_CONTRADICTION_FACTOR = 1.5
"""Claims of so many times what the counters say are no growth."""
_WITHHELD_MOST_BYTES, _WITHHELD_ERRORS, _KEPT_ERRORS = 32 << 10, 2.0, 1.5
"""What is withheld is told once it is more than so many deviations of a sum by chance, than what
may be anything else in each of the samples and than so many bytes; of a task that is known to keep
something, once it is more than three samples alike have."""


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
    largest_bytes: float = 0.0
    """What the sampled run has kept that has kept most."""

    @property
    def shows_nothing(self) -> bool:
        """Whether what is known of its runs does not show that they keep anything."""
        return self.bytes_per_run is not None and self.bytes_per_run <= 0

    def of_unexplained(self, unexplained_bytes: float, likely_bytes: float) -> Kept:
        """Where nobody's samples explain so much of the growth, for each of its runs.

        Somebody does it. If its samples are likely to show much of it, ``likely_bytes``, it is said
        to be this task.
        """
        kept = self
        if unexplained_bytes > kept.most_bytes:
            kept = kept._replace(most_bytes=unexplained_bytes, is_nothing=False)
        if not kept.bytes_per_run and likely_bytes:
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
            self.largest_bytes,
        )

    def with_found(self, size_bytes: float, counted_bytes: float) -> Kept:
        """What windows of tracing have found, where the counters leave room for it and are too
        coarse to show it: few runs of the task follow on each other, so messages hide it."""
        if not self.shows_nothing or self.is_nothing or not 0 < counted_bytes <= self.most_bytes:
            return self
        return self._replace(bytes_per_run=size_bytes, most_bytes=max(self.most_bytes, size_bytes))

    def contradicts(self, counted_bytes: float) -> bool:
        """Whether a run of the task leaves nothing behind that counts as so many bytes."""
        far_more = counted_bytes > _CONTRADICTION_FACTOR * max(self.most_bytes, 1.0)
        return self.is_nothing or (self.shows_nothing and far_more)


UNKNOWN = Kept(None, math.inf, 0, is_nothing=False)
WARMED_UP = Kept(None, 0.0, 2**63, is_nothing=True)
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

    def kept(self, least_bytes: float, sure_least_bytes: float) -> Kept:
        """Their mean and its bounds. Of many sizes the largest one is left out: what happened once
        is no leak. ``least_bytes`` is what cannot be told from nothing by an error of the mean,
        ``sure_least_bytes`` what is in all of them alike.
        """
        count, total_bytes, squares = self.count, self.total_bytes, self.squares
        if count >= SAMPLES:
            count -= 1
            total_bytes -= self.largest_bytes
            squares -= self.largest_bytes**2
        mean_bytes, error_bytes = _mean_and_error(
            count, total_bytes, squares, spread_least_bytes=_SPREAD_LEAST_BYTES
        )
        error_bytes = max(_SURE_ERRORS * error_bytes, least_bytes)
        is_sure = abs(mean_bytes) > max(error_bytes, sure_least_bytes)
        sure_bytes = mean_bytes if is_sure else 0.0
        most_bytes = mean_bytes + error_bytes
        is_nothing = self.count >= SAMPLES and most_bytes <= 2 * least_bytes
        return Kept(sure_bytes, most_bytes, self.count, is_nothing)

    def likely_bytes(self) -> float:
        """Their mean, the largest with them, if it is likely to be more than nothing; else zero."""
        if self.count < SAMPLES:
            return 0.0
        mean_bytes, error_bytes = _mean_and_error(self.count, self.total_bytes, self.squares)
        return mean_bytes if mean_bytes > _LIKELY_ERRORS * error_bytes else 0.0


def _sure_least_bytes(samples: int) -> float:
    """A block more or less is nothing in three samples, and something in ten."""
    if samples >= _MANY_SAMPLES:
        return 0.0
    return _A_WHOLE_BLOCK_BYTES if samples >= SAMPLES else UNLIKE_LEAST_BYTES


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

    A mean is over the last minute, or the newest intervals that have `SAMPLES` samples, so that a
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
            return alike.kept(ALIKE_LEAST_BYTES, _sure_least_bytes(alike.count))
        every = _sum((alike, *(each.unlike for each in self._lately())))
        if every.count < _SAMPLES_LEAST:
            return None
        return every.kept(UNLIKE_LEAST_BYTES, _UNLIKE_SURE_BYTES)

    def likely_bytes(self) -> float:
        """Net bytes a run of all samples that are kept, if they are likely to be more than nothing.

        What one sample in a hundred shows is not in those of the last minute. Samples beside runs
        of other tasks count where there are no others, for what messages do not explain.
        """
        alike = _sum(each.alike for each in self._intervals)
        if alike.count >= _SAMPLES_LEAST:
            return alike.likely_bytes()
        likely_bytes = _sum(each.unlike for each in self._intervals).likely_bytes()
        return likely_bytes if likely_bytes >= UNLIKE_LEAST_BYTES else 0.0

    def largest_bytes(self) -> float:
        """What the sampled run has kept that has kept most, of all that are known."""
        return max((each.alike.largest_bytes for each in self._intervals), default=0.0)

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
            if runs >= SAMPLES and lately[0].began_ns - each.began_ns > _LATELY_NS:
                break
            lately.append(each)
            runs += each.runs
        return lately


@dataclass
class Withheld:
    """What samples of a task that is not known to keep anything have shown, and nobody was told.

    A leak in one run of a hundred is in one sample of a hundred, and looks like that. So what is
    withheld is added up, and told once it is much and more than chance makes of samples of such
    sizes: two that happened before a large message are not enough.
    """

    sizes: _Sizes = field(default_factory=_Sizes)
    blocks: int = 0
    least_bytes: int = 0
    """So much may be anything else in all of them."""
    told_last: bool = False

    def told(self, record: RunRetained, kept: Kept | None) -> RunRetained:
        """The record as it is to be told: what it and those before it have shown, or nothing."""
        if record.heap_bytes is None or record.warm_up:
            return record
        self.sizes.add(record.heap_bytes)
        self.blocks += record.blocks
        self.least_bytes += record.least_bytes
        keeps = kept is not None and bool(kept.bytes_per_run)
        if not (keeps and self.told_last) and not self._is_told(keeps=keeps):
            self.told_last = False
            return record._replace(heap_bytes=0, blocks=0)
        self.told_last = True
        told = record._replace(heap_bytes=self.sizes.total_bytes, blocks=self.blocks)
        self.sizes, self.blocks, self.least_bytes = _Sizes(), 0, 0
        return told

    def _is_told(self, *, keeps: bool) -> bool:
        errors, most_bytes = (
            (_KEPT_ERRORS, 0) if keeps else (_WITHHELD_ERRORS, _WITHHELD_MOST_BYTES)
        )
        by_chance_bytes = errors * math.sqrt(self.sizes.squares)
        total_bytes = abs(self.sizes.total_bytes) if keeps else self.sizes.total_bytes
        return total_bytes > max(by_chance_bytes, self.least_bytes, most_bytes)
