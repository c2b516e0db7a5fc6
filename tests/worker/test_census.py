"""A census of objects in real workers: what has grown, what holds it, and what it costs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from demo.receiver import Event, Receiver
from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, Broker, Start, Worker

APP = "tests.worker.app"
CROWD = 1_000_000
NEW = 1_000
RUNS = 10
CHAIN = (
    f"{APP}.KEEPERS → dict[…] → {APP}.make_keeper.<locals>.Keeper.remember → staticmethod.__func__ "
    f"→ {APP}.make_keeper.<locals>.Keeper.<lambda> closure seen → list[…]"
)


def complete(worker: Worker, task: str, *args: Any, number: int = 1) -> dict[str, Any]:
    """The view once the census is complete; tasks run until then."""

    def over() -> dict[str, Any] | None:
        time.sleep(0.5)  # so many commands are answered
        worker.run(task, *args)
        view: dict[str, Any] = worker.command("memory").get("memory") or {}
        rows = [row for row in view.get("captures", []) if row["number"] == number]
        return view if rows and rows[0]["state"] == "complete" else None

    return wait_until("the census is complete", over, 120) or {}


def found(receiver: Receiver) -> list[Event]:
    return [event for event in receiver.received.events if event.name == "celery.memory.census"]


def test_of_a_million_objects_the_ten_thousand_new_ones_are_named_with_what_holds_them(
    start: Start, broker: Broker, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        assert worker.run("crowd", CROWD) == CROWD
        worker.run("keep_orders", 1)
        answer, _ = worker.remote(
            "control", "memory_census", str(RUNS), "--task", f"{APP}.keep_orders", broker=broker
        )
        assert f"census 1 begins: objects that are there after the next {RUNS} runs of" in answer
        again = worker.command("memory_census")
        assert "census 1 is being taken" in again["error"]
        for _ in range(RUNS):
            worker.run("keep_orders", NEW)
        view = complete(worker, "noop")
        worker.stop()
    assert [row["problem"] for row in view["objects"] if row["problem"]] == []
    rows = {row["type"]: row for row in view["objects"]}
    order = rows[f"{APP}.Order"]
    assert (order["growth"], order["runs"]) == (pytest.approx(RUNS * NEW, rel=0.01), RUNS)
    assert order["objects"] == pytest.approx(RUNS * NEW + 1, rel=0.01)
    assert (order["holder"], order["alike"]) == (CHAIN, order["sampled"])
    text = rows["str"]  # its first moment may be a run later
    assert (text["growth"], text["holder"]) == (text["runs"] * NEW, f"{APP}.TEXTS")
    assert text["runs"] in (RUNS - 2, RUNS - 1, RUNS)
    (event,) = [
        e
        for e in found(receiver)
        if e.attributes.get("celery.memory.census.type") == f"{APP}.Order"
    ]
    assert event.attributes["celery.memory.census.holder"] == CHAIN
    assert event.attributes["celery.task.name"] == f"{APP}.keep_orders"
    print(
        {
            event.attributes["celery.memory.census.type"]: event.attributes
            for event in found(receiver)
        }
    )
    print(f"\nlongest hold of a run: {event.attributes['celery.memory.census.hold'] * 1e3:.0f} ms")
