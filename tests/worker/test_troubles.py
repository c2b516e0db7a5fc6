"""A Collector in trouble, each of them, for a while: the worker, its numbers and its reporter."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import psutil
import pytest

from soak.collector import Trouble, TroubledReceiver
from tests.processes import wait_until
from tests.worker.harness import Start, losses, wait_measured

REPORTER_MAX_BYTES = 80 << 20
"""What CONTRIBUTING states: at rest some 45 MiB, and all the events that may wait."""
ROUNDS = 3

pytestmark = pytest.mark.long


@pytest.fixture
def receiver() -> Iterator[TroubledReceiver]:
    """A part that fails on demand."""
    with TroubledReceiver() as running:
        yield running


@pytest.mark.parametrize("trouble", [each for each in Trouble if each is not Trouble.NONE])
def test_after_a_collector_s_trouble_all_numbers_are_right_and_the_reporter_is_small(
    start: Start, receiver: TroubledReceiver, trouble: Trouble
) -> None:
    environ = {
        # Events of sites at every turn, beside the losses.
        "OTEL_CELERY_MEMORY_TRACING": "always",
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "4",
    }
    lost: list[str] = []
    with start(arguments=["--concurrency=2"], environ=environ) as worker:
        worker.run("keep", 1 << 20)
        wait_measured(receiver.received, {"keep": 1})
        (reporter,) = [psutil.Process(pid) for pid in [worker.reporter()] if pid]
        largest_bytes = 0
        receiver.turn(trouble)
        for _ in range(ROUNDS):
            for result in [worker.send("keep", 1 << 10) for _ in range(100)]:
                result.get(timeout=300)
            lost.append(worker.send("die", signal.SIGKILL).id)
            worker.run("sleep", 2)
            largest_bytes = max(largest_bytes, reporter.memory_info().rss)
        receiver.turn(Trouble.NONE)
        wait_measured(receiver.received, {"keep": 1 + 100 * ROUNDS, "sleep": ROUNDS})
        wait_until("the losses are reported", lambda: len(losses(receiver.received)) >= ROUNDS, 30)
        largest_bytes = max(largest_bytes, reporter.memory_info().rss)
        worker.stop()
    streams = {
        (point.attributes["celery.task.name"].rpartition(".")[2], point.start_ns): point
        for point in receiver.received.points
        if point.metric == "celery.task.memory.measured"
    }
    assert {task: point.value for (task, _), point in streams.items()} == {
        "keep": 1 + 100 * ROUNDS,
        "sleep": ROUNDS,
    }
    # Cumulative since the same start: nothing was reset.
    assert len(streams) == 2
    peaks = receiver.received.latest("celery.task.memory.rss.peak")
    assert sum(point.count for point in peaks) == 1 + 101 * ROUNDS
    reported = [event.attributes["celery.task.id"] for event in losses(receiver.received)]
    assert sorted(reported) == sorted(lost)
    assert 10 << 20 < largest_bytes < REPORTER_MAX_BYTES
