"""OTLP requests as many workers send them: every metric of the contract, at its real shape."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from otel_celery_memory import conventions as c
from otel_celery_memory.settings import Settings

MIB = 1 << 20
OF_CHILDREN = (
    *(c.HEAP_BLOCKS, c.MALLOC_USED, c.MALLOC_FREE),
    *(c.PROCESS_EXITS, c.PARTS_SWITCHED_OFF, c.MEMORY_COPIED),
    *c.GC_METRICS,
)
"""What is sent of those that run tasks: their allocators and their tracing, and how they end.

The main process is told once, as killed, and the reporter never.
"""

OF_FEW = (
    *(c.DESCENDANTS, c.DESCENDANTS_UNIQUE, c.DESCENDANTS_LEFT_SIZE),
    *(c.TREE_PEAK, c.EXITS_REPEATED, c.EXHAUSTION, c.GC_UNCOLLECTABLE),
)
"""One task in ten starts processes or kills its process again and again, and one slot in ten has
processes that were started, or comes near a limit."""

LEAKS = 5
"""So many verdicts stand in a worker at once: more than anybody has left unattended."""

FIRST_RUNS_TOO = (c.RSS_RETAINED, c.HEAP_RETAINED)
"""Those in which a task's first run has a direction of its own. Garbage only grows."""


@dataclass(frozen=True)
class Shape:
    """How big a worker is, and which service it belongs to."""

    service: str
    tasks: int
    children: int

    def attributes(self, metric: c.Metric) -> Iterator[Mapping[str, Any]]:
        """Every set of attributes with which such a worker sends the metric."""
        if metric in c.SITE_METRICS:
            # Bounded by the ranking, and not by how many tasks, places and windows there are.
            for number in range(Settings().sites_top):
                task = f"shop.tasks.number_{number % self.tasks}"
                yield dict(
                    zip(metric.attributes, (task, f"shop/{number}.py:1", "complete"), strict=True)
                )
            return
        if metric in (c.LEAK_RATE_LEVEL, c.LEAK_ACTIVE):
            for number in range(min(LEAKS, self.tasks)):
                named = (f"shop.tasks.number_{number}", "python", "task", "leaking")
                found = (f"shop/{number}.py:1", f"shop.HELD_{number}")
                yield dict(zip(metric.attributes, (*named, *found), strict=True))
            return
        values = self._values()
        if metric in FIRST_RUNS_TOO:
            values = {**values, c.DIRECTION: (c.GROW, c.SHRINK, c.WARM_UP)}
        if metric == c.HEAP_GARBAGE:
            values = {**values, c.DIRECTION: (c.GROW,)}
        if metric in OF_CHILDREN:
            values = {**values, c.SLOT: tuple(map(str, range(self.children)))}
        if metric in OF_FEW:
            values = {name: some[::10] for name, some in values.items()}
        for chosen in product(*(values[name] for name in metric.attributes)):
            yield dict(zip(metric.attributes, chosen, strict=True))
        if metric == c.PROCESS_EXITS:
            yield {c.SLOT: "main", c.EXIT_REASON: "killed"}

    def _values(self) -> Mapping[str, tuple[Any, ...]]:
        """Every value that an attribute of the contract takes in such a worker."""
        return {
            c.TASK_NAME: tuple(f"shop.tasks.number_{number}" for number in range(self.tasks)),
            c.TASK_STATE: ("SUCCESS", "FAILURE", "RETRY"),
            c.EXCLUSIVE: (True,),
            c.DIRECTION: (c.GROW, c.SHRINK),
            c.SLOT: ("main", "reporter", *map(str, range(self.children))),
            c.LIMIT_KIND: ("cgroup", "host", "max_memory_per_child"),
            c.EXIT_REASON: ("max_tasks", "killed"),
            c.MESSAGE_STATE: c.MESSAGE_STATES,
            c.PART: ("tracing",),
            c.GC_GENERATION: tuple(range(c.GC_GENERATIONS)),
            c.FRAME_KIND: (c.FRAME_TASK_END, c.FRAME_OTHER, c.FRAME_DAMAGED),
        }


class SyntheticWorkers:
    """Requests of workers that have all done the same; one template, a name for each."""

    def __init__(self, shape: Shape) -> None:
        resource = {"service.name": shape.service, "service.instance.id": "?", "host.name": "node"}
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], Resource(resource), shutdown_on_exit=False)
        meter = provider.get_meter(c.SCOPE, "1.2.3")
        for metric in c.METRICS:
            _fill(meter, metric, shape.attributes(metric))
        data = reader.get_metrics_data()
        assert data is not None
        self._template: ExportMetricsServiceRequest = encode_metrics(data)
        provider.shutdown()
        self._points = list(_points(self._template))
        attributes = self._template.resource_metrics[0].resource.attributes
        (self._name,) = (each for each in attributes if each.key == "service.instance.id")

    @property
    def points(self) -> int:
        """Data points of one request."""
        return len(self._points)

    def advance(self) -> None:
        """A moment later: counters and histograms have grown, and the time is now."""
        now_ns = time.time_ns()
        for point in self._points:
            point.time_unix_nano = now_ns
            if hasattr(point, "bucket_counts"):
                point.count += 1
                point.sum += 70_000
                # A histogram without bounds has the one bucket that counts all.
                point.bucket_counts[min(1, len(point.bucket_counts) - 1)] += 1
            else:
                point.as_int += 1

    def request(self, node: str) -> bytes:
        """What the worker of this name sends."""
        self._name.value.string_value = node
        return bytes(self._template.SerializeToString())


def _fill(meter: Any, metric: c.Metric, all_attributes: Iterable[Mapping[str, Any]]) -> None:
    """One measurement for each set of the metric's attributes."""
    makers = {
        "Histogram": lambda: (
            meter.create_histogram(
                metric.name,
                metric.unit,
                explicit_bucket_boundaries_advisory=list(_bounds(metric)),
            ).record
        ),
        "Counter": lambda: meter.create_counter(metric.name, metric.unit).add,
        "UpDownCounter": lambda: meter.create_up_down_counter(metric.name, metric.unit).add,
        "Gauge": lambda: meter.create_gauge(metric.name, metric.unit).set,
    }
    measure = makers[metric.kind]()
    for attributes in all_attributes:
        measure(MIB, attributes)


def _bounds(metric: c.Metric) -> tuple[float, ...]:
    """Of sizes unless the metric has bounds of its own."""
    return getattr(metric, "bounds", c.BUCKET_BOUNDS_BYTES)


def _points(request: ExportMetricsServiceRequest) -> Iterator[Any]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield from getattr(metric, str(metric.WhichOneof("data"))).data_points
