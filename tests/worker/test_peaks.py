"""The peak of a run: what others see of how it is measured, and how not to."""

from __future__ import annotations

import pytest

from demo.receiver import Receiver
from tests.worker.harness import Start, exits, measured

BARE = {"OTEL_SDK_DISABLED": "true"}
MIB = 1 << 20


@pytest.mark.parametrize("environ", [BARE, {}], ids=["bare", "measured"])
def test_a_child_that_was_too_large_before_its_first_task_is_recycled_after_it_as_without_us(
    start: Start, receiver: Receiver, environ: dict[str, str]
) -> None:
    arguments = ["--concurrency=1", "--max-memory-per-child=250000"]
    spike = {"TEST_SPIKE_BYTES": str(400 * MIB), **environ}
    with start(arguments=arguments, environ=spike) as worker:
        pids = [worker.run("sleep", 0) for _ in range(4)]
        worker.stop()
    assert len(set(pids)) == 4
    if environ != BARE:
        assert exits(receiver.received)["max_memory"] >= 3
        # A peak that was not the run's own is absent, not zero; so is not what else was measured.
        assert measured(receiver.received) == {"sleep": 4}
        assert receiver.received.latest("celery.task.memory.rss.peak") == []
        assert sum(p.count for p in receiver.received.latest("celery.task.memory.rss.delta")) == 4


def test_a_task_reads_the_peak_of_its_process_as_without_us_if_peaks_are_off(
    start: Start, receiver: Receiver
) -> None:
    environ = {"OTEL_CELERY_MEMORY_PEAKS": "off"}
    with start(arguments=["--concurrency=1"], environ=environ) as worker:
        worker.run("free", 300 * MIB)
        assert worker.run("high_water_kib") >= 300 * 1024
        worker.stop()
    assert measured(receiver.received) == {"free": 1, "high_water_kib": 1}
    assert receiver.received.latest("celery.task.memory.rss.peak") == []
    assert sum(p.count for p in receiver.received.latest("celery.task.memory.rss.delta")) == 2
