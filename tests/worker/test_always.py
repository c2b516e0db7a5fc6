"""Tracing that is always on, in real workers: what failed runs hold is not told as a leak."""

from __future__ import annotations

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import Start
from tests.worker.test_budget import sites

HELD_BYTES = 100_000
FAILING = ("fail_holding", "retry_holding")


@pytest.mark.parametrize("tracing", ["always", "budget"])
def test_what_a_failed_or_retried_run_holds_until_it_is_collected_is_no_leak_of_it(
    start: Start, receiver: Receiver, tracing: str
) -> None:
    environ = {
        "OTEL_CELERY_MEMORY_TRACING": tracing,
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
        "OTEL_CELERY_MEMORY_SITES_TOP": "100",
    }

    def told() -> list[tuple[str, str]]:
        """The last part of the task's name, and what window of it was told."""
        return [
            (
                event.attributes.get("celery.task.name", "").rpartition(".")[2],
                event.attributes["celery.memory.site.window"],
            )
            for event in sites(receiver)
        ]

    with start(arguments=["--concurrency=1"], environ=environ) as worker:

        def told_of_all() -> bool:
            for name in FAILING * 8:
                worker.send(name, HELD_BYTES).get(timeout=30, propagate=False)
                worker.run("noop")
            return {task for task, _ in told()} >= {*FAILING, "noop"}

        for _ in range(3):
            wait_until("sites of all tasks are told", told_of_all, 60)
    # What a run holds when it is looked at is the garbage collector's affair, and Celery's.
    assert {window for task, window in told() if task in FAILING} == {"partial"}
