"""Gauges of the ranked sites. A site that the last ranking left out is not collected any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from opentelemetry.sdk.metrics.export import Gauge, Metric, NumberDataPoint

from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry.events import RankedSite
from otel_celery_memory.telemetry.metrics import Level, in_64_bits

Read = Callable[[], Iterable[Level]]
Observe = Callable[[Mapping[c.Metric, Read]], None]

REMEMBERED_MAX = 1_000
"""Most places on a meter that keeps every attribute set for good; later ones become ``_other``.

The SDK allows 2,000 attribute sets: the rest is for ``_other`` of each task and window.
"""
_NAME_MAX_BYTES = 200
"""The Collector cuts labels to this length too. We cut the beginning, to keep the line number."""


class _Place(NamedTuple):
    task: str
    name: str
    window: str

    def attributes(self) -> dict[str, str]:
        named = {c.SITE_NAME: self.name, c.SITE_WINDOW: self.window}
        return {c.TASK_NAME: self.task, **named} if self.task else named


class SiteGauges:
    """The last ranking, by place; written by one thread, read by the exporter's."""

    def __init__(self, observe: Observe, remembered_max: int | None = None) -> None:
        """``observe`` makes the instruments; ``remembered_max`` is the most places they get."""
        self._remembered_max = remembered_max
        self._remembered: set[_Place] = set()
        self._levels: Mapping[c.Metric, list[Level]] = {}
        observe({metric: partial(self._read, metric) for metric in c.SITE_METRICS})

    def update(self, sites: Iterable[RankedSite], bounded_task: Callable[[str], str]) -> None:
        """Replaces the sites.

        Sites with the same task, name and window (files of one short name, or a name that was cut)
        are one place: their sizes and rates are added.
        """
        sizes: dict[_Place, int] = {}
        rates: dict[_Place, int] = {}
        runs: dict[_Place, int] = {}
        for site in sites:
            place = self._bounded(
                _Place(
                    bounded_task(site.task) if site.task else "",
                    short_name(site.name),
                    site.kind.name.lower(),
                )
            )
            sizes[place] = sizes.get(place, 0) + site.size_bytes
            runs[place] = max(runs.get(place, 0), site.runs)
            if site.rate_bytes_per_minute is not None:
                rates[place] = rates.get(place, 0) + site.rate_bytes_per_minute
        self._levels = {
            c.SITE_SIZE_LEVEL: _as_levels(sizes),
            c.SITE_RATE_LEVEL: _as_levels(rates),
            c.SITE_RUNS_LEVEL: _as_levels(runs),
        }

    def clear(self) -> None:
        """Removes all sites until the next ranking."""
        self._levels = {}

    def _read(self, metric: c.Metric) -> list[Level]:
        return self._levels.get(metric, [])

    def _bounded(self, place: _Place) -> _Place:
        if self._remembered_max is None or place in self._remembered:
            return place
        if len(self._remembered) >= self._remembered_max:
            return place._replace(name=c.OTHER)
        self._remembered.add(place)
        return place


def short_name(name: str) -> str:
    """A place's name as a label. Of a long one the end is kept, which has the file and the line."""
    encoded = name.encode("utf-8", "replace")
    if len(encoded) <= _NAME_MAX_BYTES:
        return encoded.decode()
    cut = "…".encode()
    end = encoded[len(cut) - _NAME_MAX_BYTES :].decode("utf-8", "ignore")
    return cut.decode() + end


def _as_levels(values: Mapping[_Place, int]) -> list[Level]:
    # One number of more than 64 bits makes the exporter drop all metrics.
    return [(in_64_bits(value), place.attributes()) for place, value in values.items()]


class CurrentGauge:
    """A gauge that keeps no attribute sets; our own reader exports its points.

    The SDK's observable gauge keeps every attribute set that it ever saw and exports no new one
    beyond 2,000. A worker that runs for weeks would not show a line that begins to leak then.
    """

    def __init__(
        self, metric: c.Metric, read: Read, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._metric = metric
        self._read = read
        self._clock_ns = clock_ns

    def collect(self) -> Metric | None:
        """The metric as it is now; ``None`` if there are no points."""
        now_ns = self._clock_ns()
        points = [_point(value, attributes, now_ns) for value, attributes in self._read()]
        if not points:
            return None
        metric = self._metric
        return Metric(metric.name, metric.meaning, metric.unit, Gauge(points))


def _point(value: int | float, attributes: Mapping[str, Any], now_ns: int) -> NumberDataPoint:
    # A gauge has no start time; the SDK's gauges have none either.
    return NumberDataPoint(
        attributes=dict(attributes),
        start_time_unix_nano=None,  # type: ignore[arg-type]
        time_unix_nano=now_ns,
        value=value,
    )
