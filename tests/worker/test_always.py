"""Tracing that is always on, in real workers: what failed runs keep is not reported as a leak."""

from __future__ import annotations

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import Start
from tests.worker.test_budget import LEAK_BYTES, sites

HELD_BYTES = 100_000
FAILING = ("fail_holding", "retry_holding")


@pytest.mark.parametrize("tracing", ["always", "budget"])
def test_what_a_failed_or_retried_run_keeps_until_collection_is_not_its_leak(
    start: Start, receiver: Receiver, tracing: str
) -> None:
    environ = {
        "OTEL_CELERY_MEMORY_TRACING": tracing,
        # Tracebacks are slow to make under tracing: so much that windows follow one another.
        "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5",
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
        "OTEL_CELERY_MEMORY_SITES_TOP": "100",
    }

    def told(window: str) -> dict[str, list[int]]:
        """Sizes of the sites of each task, by the last part of its name, in such windows."""
        found: dict[str, list[int]] = {}
        for event in sites(receiver):
            attributes = event.attributes
            if attributes["celery.memory.site.window"] == window:
                task = attributes.get("celery.task.name", "").rpartition(".")[2]
                found.setdefault(task, []).append(attributes["celery.memory.site.size"])
        return found

    others = 1 if tracing == "always" else 6
    with start(arguments=["--concurrency=1"], environ=environ) as worker:

        def told_all() -> bool:
            for name in FAILING * 8:
                worker.send(name, HELD_BYTES).get(timeout=300, propagate=False)
                # A window ends before a run that is too slow: so there are others between.
                for result in [worker.send("keep", LEAK_BYTES) for _ in range(others)]:
                    result.get(timeout=300)
            if tracing == "always":
                return told("partial").keys() >= {*FAILING}
            # A window has runs of all three, of which one leaves something.
            return max(told("complete").get("keep", [0])) >= LEAK_BYTES

        for _ in range(3):
            wait_until("sites of the tasks are told", told_all, 180)
    # What a run still keeps when it is measured depends on the garbage collector, and Celery.
    assert told("complete").keys() & {*FAILING} == set()
