"""The line that leaks as a metric, in real workers: with its task and window, and gone again."""

from __future__ import annotations

import pytest

from demo.receiver import Point, Received, Receiver
from otel_celery_memory import conventions as c
from tests.processes import wait_until
from tests.worker.harness import Start
from tests.worker.test_budget import LEAK_BYTES, TASK, line_of

EAGER = {
    "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5",
    "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
    "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "0.5",
}


def leaking(received: Received, metric: c.Metric) -> list[Point]:
    """The points of the line that leaks, of whole runs."""
    # Relative to the worker's directory, or to nothing where the app is elsewhere.
    end = f"app.py:{line_of('the line that leaks in churn_and_keep')}"
    return [
        point
        for point in list(received.points)
        if point.metric == metric.name
        and point.attributes.get(c.TASK_NAME) == TASK
        and point.attributes[c.SITE_WINDOW] == "complete"
        and point.attributes[c.SITE_NAME].endswith(end)
    ]


def exports_since(received: Received, last: Point) -> int:
    """How often metrics were exported without the line, after it was exported last."""
    return len(
        {
            point.time_ns
            for point in list(received.points)
            if point.metric == c.MEMORY.name and point.time_ns > last.time_ns
        }
    )


@pytest.mark.parametrize("delivery", ["reporter", "inprocess"])
def test_a_line_that_leaks_is_a_metric_until_its_task_runs_no_more(
    start: Start, receiver: Receiver, delivery: str
) -> None:
    environ = {**EAGER, "OTEL_CELERY_MEMORY_DELIVERY": delivery}
    received = receiver.received
    with start(arguments=["--concurrency=1"], environ=environ) as worker:

        def reported() -> bool:
            for result in [worker.send("churn_and_keep", LEAK_BYTES) for _ in range(50)]:
                result.get(timeout=300)
            return all(leaking(received, metric) for metric in c.SITE_METRICS)

        def gone() -> bool:
            # In process nothing is ranked between tasks.
            worker.run("noop")
            return exports_since(received, leaking(received, c.SITE_SIZE_LEVEL)[-1]) >= 3

        wait_until("the line is reported", reported, 120)
        wait_until("it is reported no more", gone, 60)
    size, rate, runs = (leaking(received, metric)[-1] for metric in c.SITE_METRICS)
    assert (size.unit, rate.unit, runs.unit) == ("By", "By/min", "{run}")
    # The bytes, their bytearray, and now and then another block of the deque.
    assert LEAK_BYTES < size.value < 2 * LEAK_BYTES
    # Of a task that ran fifty times a second or more often the estimate is many times a run's.
    assert rate.value > size.value
    assert runs.value >= 1


def test_each_ranking_has_no_more_sites_than_sites_top(start: Start, receiver: Receiver) -> None:
    # A window of each task may be half a minute after that of another one on a busy machine, and
    # what was found is ranked for ten intervals.
    environ = {
        **EAGER,
        "OTEL_CELERY_MEMORY_SITES_TOP": "2",
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "10",
    }
    received = receiver.received
    with start(arguments=["--concurrency=1"], environ=environ) as worker:

        def reported() -> bool:
            for name in ("churn_and_keep", "keep", "noop"):
                for result in [worker.send(name, *_SIZES.get(name, ())) for _ in range(20)]:
                    result.get(timeout=300)
            return max(places().values(), default=0) == 2

        def places() -> dict[int, int]:
            """How many places each collection had."""
            found: dict[int, int] = {}
            for point in list(received.points):
                if point.metric == c.SITE_SIZE_LEVEL.name:
                    found[point.time_ns] = found.get(point.time_ns, 0) + 1
            return found

        wait_until("two places are reported at once", reported, 120)
    assert max(places().values()) == 2


_SIZES = {"churn_and_keep": (LEAK_BYTES,), "keep": (LEAK_BYTES,)}
