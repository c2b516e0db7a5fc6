"""A part of ours that fails in a child is seen from outside, and no task notices."""

from __future__ import annotations

from typing import Any

from demo.receiver import Receiver
from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, Start, measured

ENVIRON = {**CONTROLLED, "TEST_BROKEN_HEAP": "1"}


def test_a_part_that_fails_in_children_is_in_a_metric_and_in_inspect_memory(
    start: Start, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=2"], environ=ENVIRON) as worker:

        def told() -> set[tuple[Any, Any, float]]:
            for result in [worker.send("noop") for _ in range(50)]:
                result.get(timeout=30)
            points = receiver.received.latest("celery.memory.parts.switched_off")
            return {
                (p.attributes["celery.worker.slot"], p.attributes["celery.memory.part"], p.value)
                for p in points
            }

        both = {("0", "heap", 1), ("1", "heap", 1)}
        wait_until("both children's are told", lambda: told() == both, 30)
        answer: dict[str, Any] = {}

        def shown() -> bool:
            nonlocal answer
            answer = worker.order("memory")
            return "switched off: heap (0), heap (1)" in answer.get("ok", "")

        wait_until("they are shown", shown, 60)
        assert answer["memory"]["switched_off"] == [
            {"slot": "0", "part": "heap"},
            {"slot": "1", "part": "heap"},
        ]
        worker.stop()
    assert measured(receiver.received)["noop"] % 50 == 0
    assert worker.log().count("heap failed and is switched off") == 2
