"""Tracing that is always on, in real workers: what failed runs hold is not told as a leak."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import Worker
from tests.worker.test_budget import APP, line_of, sites

Start = Callable[..., AbstractContextManager[Worker]]
HELD_BYTES = 100_000
FAILING = ("fail_holding", "retry_holding")


@pytest.mark.parametrize("tracing", ["always", "budget"])
def test_what_a_failed_or_retried_run_holds_until_it_is_collected_is_no_leak_of_it(
    start: Start, receiver: Receiver, tracing: str
) -> None:
    environ = {
        "OTEL_CELERY_MEMORY_TRACING": tracing,
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "2",
        "OTEL_CELERY_MEMORY_SITES_TOP": "100",
    }
    lines = {line_of(f"what {name} holds") for name in FAILING}

    def told() -> list[tuple[str, int]]:
        return [
            (event.attributes["celery.memory.site.window"], event.attributes["code.line.number"])
            for event in sites(receiver)
            if event.attributes["code.file.path"] == str(APP)
            and event.attributes["code.line.number"] in lines
            and event.attributes["celery.memory.site.size"] > HELD_BYTES / 2
        ]

    with start(arguments=["--concurrency=1"], environ=environ) as worker:

        def both_told() -> bool:
            for name in FAILING * 20:
                worker.send(name, HELD_BYTES).get(timeout=30, propagate=False)
                worker.run("noop")
            return {line for _, line in told()} == lines

        wait_until("the lines of both tasks are told", both_told, 60)
    assert {window for window, _ in told()} == {"slice"}
