"""Says when a limit is reached, and which settings keep a worker below it until a leak is fixed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from otel_celery_memory.leaks.verdict import Forecast, Interval

_MARGIN = 1.1
"""A process may be a tenth larger than its largest healthy run before it is replaced."""


@dataclass(frozen=True)
class Headroom:
    """What is left below one limit. ``share`` of the worker's growth goes into what it limits.

    A limit of the whole worker has a share of 1, one of a child what this child has of the growth.
    """

    slot: str
    limit: str
    limit_bytes: int
    left_bytes: float
    share: float = 1.0


def time_to_limit(rate_per_s: Interval, headrooms: Iterable[Headroom]) -> Forecast | None:
    """When the nearest limit is reached at this rate; ``None`` if nothing grows or is limited."""
    if not (math.isfinite(rate_per_s.middle) and rate_per_s.middle > 0):
        return None
    forecasts = [
        Forecast(each.slot, each.limit, each.limit_bytes, _seconds(each, rate_per_s))
        for each in headrooms
        if each.share > 0 and math.isfinite(each.left_bytes)
    ]
    return min(forecasts, key=lambda each: each.seconds.middle, default=None)


def _seconds(room: Headroom, rate: Interval) -> Interval:
    left = max(0.0, room.left_bytes)
    middle, low, high = (
        left / (each * room.share) if each > 0 else math.inf
        for each in (rate.middle, rate.high, rate.low)
    )
    return Interval(middle, low, high)


def largest_max_tasks_per_child(
    limit_per_child_bytes: float, base_bytes: float, healthy_peak_bytes: float, rate: Interval
) -> int | None:
    """The most runs after which a child has to be replaced to stay below its limit.

    ``base_bytes`` is what it has after its warm-up, ``healthy_peak_bytes`` how much the largest
    run takes and gives back, ``rate`` what a run of any task leaves behind, on average. ``None`` if
    nothing is left behind, or if not even one run fits.
    """
    worst = rate.high if math.isfinite(rate.high) else 2 * rate.middle
    left = limit_per_child_bytes - base_bytes - healthy_peak_bytes
    if not (worst > 0 and math.isfinite(left)) or left < worst:
        return None
    return int(left / worst)


def least_max_memory_per_child(
    limit_per_child_bytes: float, base_bytes: float, healthy_peak_bytes: float
) -> int | None:
    """A ``worker_max_memory_per_child``, in bytes, at which no child is replaced for a healthy run.

    Celery compares it with the most that the child ever had (``ru_maxrss``), after each run; so the
    largest healthy run has to fit. ``None`` if it does not fit below the child's limit either.
    """
    wanted = (base_bytes + healthy_peak_bytes) * _MARGIN
    if not (math.isfinite(wanted) and wanted > 0):
        return None
    return math.ceil(wanted) if wanted < limit_per_child_bytes else None
