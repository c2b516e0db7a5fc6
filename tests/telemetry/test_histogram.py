"""Our histogram against the SDK's own: the same values make equal points."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
)

from otel_celery_memory.conventions import BUCKET_BOUNDS_BYTES
from otel_celery_memory.ipc.records import NO_SPAN
from otel_celery_memory.telemetry.metrics import TaskHistogram, span_context
from tests.telemetry.payload import Plain, metric_payload, metrics_of
from tests.unit.fakes import FakeClock

OPTIONS: dict[str, Any] = {
    "unit": "By",
    "description": "a size",
    "explicit_bucket_boundaries_advisory": list(BUCKET_BOUNDS_BYTES),
}
TASKS = [{"celery.task.name": name} for name in ("a", "b", "c")]


class Pair:
    """Our histogram and the SDK's, fed alike."""

    def __init__(self, *, delta: bool) -> None:
        chosen = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        self.reader = InMemoryMetricReader(preferred_temporality={SdkHistogram: chosen})
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.theirs: Histogram = self.meters.get_meter("s").create_histogram("size", **OPTIONS)
        self.ours = TaskHistogram("size", delta=delta, **OPTIONS)

    def record(self, amount: float, attributes: Plain, context: Context) -> None:
        for histogram in (self.ours, self.theirs):
            histogram.record(amount, attributes, context)

    def collect(self) -> tuple[Plain | None, Plain | None]:
        """The points of ours and of the SDK's."""
        ours = self.ours.collect()
        data = self.reader.get_metrics_data()
        theirs = metrics_of(data)[0] if data and data.resource_metrics else None
        return (
            metric_payload(ours) if ours else None,
            metric_payload(theirs) if theirs else None,
        )


def sizes(chance: random.Random) -> float:
    """A size: anything, a bound, one beside it, zero, beyond the last bound."""
    bound = chance.choice(BUCKET_BOUNDS_BYTES)
    amounts: list[float] = [
        chance.randrange(1 << chance.randrange(1, 36)),
        bound,
        bound + 1,
        bound - 1,
        0,
        2**40,
        chance.randrange(1_000) + 0.5,
    ]
    return chance.choice(amounts)


@pytest.mark.parametrize("delta", [False, True], ids=["cumulative", "delta"])
@pytest.mark.parametrize("seed", range(10))
def test_values_at_random_make_equal_points_over_many_collections(seed: int, delta: bool) -> None:
    chance = random.Random(seed)
    pair = Pair(delta=delta)
    for _ in range(8):
        for _ in range(chance.choice((0, 1, 5, 300))):
            span = chance.choice((NO_SPAN, chance.randbytes(24) + chance.choice((b"\0", b"\1"))))
            pair.record(sizes(chance), chance.choice(TASKS), span_context(span))
        ours, theirs = pair.collect()
        assert ours == theirs
    pair.meters.shutdown()


def test_before_anything_is_recorded_there_is_no_metric() -> None:
    for delta in (False, True):
        pair = Pair(delta=delta)
        assert pair.collect() == (None, None)
        pair.meters.shutdown()


def test_a_cumulative_point_begins_when_the_histogram_was_made() -> None:
    assert times(delta=False) == [(100, 110), (100, 120)]


def test_a_delta_point_begins_where_the_one_before_it_ended() -> None:
    assert times(delta=True) == [(100, 110), (110, 120)]


def times(*, delta: bool) -> list[tuple[int, int]]:
    """Start and end of the points of two collections, ten nanoseconds apart."""
    clock = FakeClock(100)
    histogram = TaskHistogram("size", delta=delta, clock_ns=lambda: int(clock()), **OPTIONS)
    found = []
    for _ in range(2):
        clock.move(10)
        histogram.record(1, TASKS[0])
        metric = histogram.collect()
        assert metric is not None
        (point,) = metric.data.data_points
        found.append((point.start_time_unix_nano, point.time_unix_nano))
    return found


def test_without_bounds_there_is_one_bucket() -> None:
    histogram = TaskHistogram("size")
    histogram.record(5)
    metric = histogram.collect()
    assert metric is not None
    (point,) = metric_payload(metric)["points"]
    assert (point["attributes"], point["buckets"]) == ({}, {math.inf: 1})


def test_attribute_sets_beyond_the_bound_overflow_into_one() -> None:
    histogram = TaskHistogram("size", **OPTIONS)
    for number in range(2_500):
        histogram.record(1, {"n": number})
    metric = histogram.collect()
    assert metric is not None
    counts = [
        (p["attributes"], p["count"]) for p in metric_payload(metric, ordered=False)["points"]
    ]
    assert len(counts) == 2_001
    assert counts[-1] == ({"otel.metric.overflow": True}, 500)
