"""Gauges of the verdicts: what leaks, how fast, and how long until a limit is reached.

A verdict that is gone is not collected any more, and one that changes its state changes its
attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from otel_celery_memory import conventions as c
from otel_celery_memory.leaks.verdict import State, Verdict
from otel_celery_memory.telemetry.metrics import BoundedNames, Level, in_64_bits
from otel_celery_memory.telemetry.site_gauges import Observe, short_name


class _Leak(NamedTuple):
    """The attributes of a verdict on metrics; empty where something is not known."""

    task: str
    kind: str
    where: str
    state: str
    site: str
    holder: str

    def attributes(self) -> dict[str, str]:
        named = zip(c.LEAK_ACTIVE.attributes, self, strict=True)
        return {name: value for name, value in named if value}


class LeakGauges:
    """The verdicts as they are now; written by one thread, read by the exporter's."""

    def __init__(self, observe: Observe) -> None:
        """``observe`` makes the instruments."""
        self._sites = BoundedNames(c.LEAK_PLACES_MAX)
        self._holders = BoundedNames(c.LEAK_PLACES_MAX)
        self._levels: Mapping[c.Metric, list[Level]] = {}
        observe({metric: partial(self._read, metric) for metric in c.LEAK_METRICS})

    def update(self, verdicts: Iterable[Verdict], bounded_task: Callable[[str], str]) -> None:
        """Replaces the verdicts. Those with the same attributes are one: they are added."""
        verdicts = list(verdicts)
        rates: dict[_Leak, float] = {}
        active: dict[_Leak, int] = {}
        for verdict in verdicts:
            leak = self._leak(verdict, bounded_task)
            stands = verdict.state != State.ENDED
            active[leak] = active.get(leak, 0) + stands
            rate = verdict.rate
            in_bytes = verdict.kind.unit == "By"
            if stands and in_bytes and rate is not None and math.isfinite(rate.middle):
                rates[leak] = rates.get(leak, 0.0) + rate.middle
        self._levels = {
            c.LEAK_RATE_LEVEL: [
                (in_64_bits(round(rate)), leak.attributes()) for leak, rate in rates.items()
            ],
            c.LEAK_ACTIVE: [(count, leak.attributes()) for leak, count in active.items()],
            c.EXHAUSTION: [
                (seconds, {c.SLOT: slot}) for slot, seconds in _exhaustion_s(verdicts).items()
            ],
        }

    def clear(self) -> None:
        """Removes all verdicts until the next update."""
        self._levels = {}

    def _read(self, metric: c.Metric) -> list[Level]:
        return self._levels.get(metric, [])

    def _leak(self, verdict: Verdict, bounded_task: Callable[[str], str]) -> _Leak:
        place, holder = verdict.place, verdict.holder
        return _Leak(
            bounded_task(verdict.task) if verdict.task else "",
            verdict.kind.value,
            verdict.where.value,
            verdict.state.value,
            self._sites.bounded(short_name(place.name)) if place and place.name else "",
            self._holders.bounded(short_holder(holder.chain)) if holder and holder.chain else "",
        )


def short_holder(chain: str) -> str:
    """A chain as a label. Of a long one the beginning is kept: the root is what must let go."""
    # A lone surrogate would make the exporter drop all metrics.
    text = chain.encode("utf-8", "replace").decode()
    return text if len(text) <= c.LEAK_HOLDER_MAX else text[: c.LEAK_HOLDER_MAX - 1] + "…"


def _exhaustion_s(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Seconds until the nearest limit, by slot.

    A suspicion may be a cache that fills up: it must not be taken for the end of a worker that
    leaks slowly.
    """
    for state in (State.LEAKING, State.SUSPECTED):
        found: dict[str, float] = {}
        for verdict in verdicts:
            forecast = verdict.forecast
            if verdict.state == state and forecast is not None:
                seconds = forecast.seconds.middle
                if math.isfinite(seconds):
                    found[forecast.slot] = min(found.get(forecast.slot, seconds), seconds)
        if found:
            return found
    return {}
