"""A part that fails in a child is reported, and no task notices."""

from __future__ import annotations

from typing import Any

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, Start, measured

FREE_CHUNKS = 500_000
"""A read of glibc's counters then takes 30 ms at least."""

ENVIRON = {**CONTROLLED, "TEST_BROKEN_HEAP": "1"}


def test_a_part_that_fails_in_children_is_in_a_metric_and_in_inspect_memory(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=2"], environ=ENVIRON) as worker:

        def reported() -> set[tuple[Any, Any, float]]:
            for result in [worker.send("noop") for _ in range(50)]:
                result.get(timeout=300)
            points = receiver.received.latest("celery.memory.parts.switched_off")
            return {
                (p.attributes["celery.worker.slot"], p.attributes["celery.memory.part"], p.value)
                for p in points
            }

        both = {("0", "heap", 1), ("1", "heap", 1)}
        wait_until("both children's are reported", lambda: reported() == both, 30)
        answer: dict[str, Any] = {}

        def shown() -> bool:
            nonlocal answer
            answer = worker.command("memory")
            return "switched off: heap (0), heap (1)" in answer.get("ok", "")

        wait_until("they are shown", shown, 60)
        assert answer["memory"]["switched_off"] == [
            {"slot": "0", "part": "heap"},
            {"slot": "1", "part": "heap"},
        ]
        worker.stop()
    assert measured(receiver.received)["noop"] % 50 == 0
    assert worker.log().count("heap failed and is switched off") == 2


def test_where_malloc_has_so_many_free_chunks_that_reads_would_hold_runs_that_is_said(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        worker.run("fragment", FREE_CHUNKS)

        def said() -> bool:
            for _ in range(20):
                worker.run("noop")
            points = receiver.received.latest("celery.memory.parts.switched_off")
            parts = {p.attributes["celery.memory.part"] for p in points if p.value}
            assert parts <= {"malloc"}
            return parts == {"malloc"}

        wait_until("that malloc is not read any more", said, 60)
        for _ in range(20):
            worker.run("noop")
        worker.stop()
    runs = measured(receiver.received)
    assert (runs["fragment"], runs["noop"] % 20) == (1, 0)
    retained = receiver.received.latest("celery.task.heap.retained")
    assert [p for p in retained if p.attributes["celery.task.name"].endswith("noop")] == []
