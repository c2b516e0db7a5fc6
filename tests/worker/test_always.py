"""Tracing that is always on, in real workers: what failed runs keep is not reported as a leak."""

from __future__ import annotations

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import Start
from tests.worker.test_budget import sites

HELD_BYTES = 100_000
FAILING = ("fail_holding", "retry_holding")


@pytest.mark.parametrize("tracing", ["always", "budget"])
def test_what_a_failed_or_retried_run_keeps_until_collection_is_not_its_leak(
    start: Start, receiver: Receiver, tracing: str
) -> None:
    environ = {
        "OTEL_CELERY_MEMORY_TRACING": tracing,
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
        "OTEL_CELERY_MEMORY_SITES_TOP": "100",
    }

    def reported() -> list[tuple[str, str]]:
        """The last part of each task's name, with the window that was reported."""
        return [
            (
                event.attributes.get("celery.task.name", "").rpartition(".")[2],
                event.attributes["celery.memory.site.window"],
            )
            for event in sites(receiver)
        ]

    with start(arguments=["--concurrency=1"], environ=environ) as worker:

        def reported_all() -> bool:
            for name in FAILING * 8:
                worker.send(name, HELD_BYTES).get(timeout=30, propagate=False)
                worker.run("noop")
            return {task for task, _ in reported()} >= {*FAILING, "noop"}

        for _ in range(3):
            wait_until("sites of all tasks are reported", reported_all, 60)
    # What a run still keeps when it is measured depends on the garbage collector, and Celery.
    assert {window for task, window in reported() if task in FAILING} == {"partial"}
