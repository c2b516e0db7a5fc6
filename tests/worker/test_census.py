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


def complete(worker: Worker, task: str, *args: Any) -> dict[str, Any]:
    """The view once the census is complete; tasks run until then, some at once."""

    def over() -> dict[str, Any] | None:
        for result in [worker.send(task, *args) for _ in range(4)]:
            result.get(timeout=300)
        time.sleep(0.5)  # so many commands are answered
        view: dict[str, Any] = worker.command("memory").get("memory") or {}
        rows = [row for row in view.get("captures", []) if row["kind"] == "census"]
        return view if rows and rows[0]["state"] == "complete" else None

    return wait_until("the census is complete", over, 120) or {}


def events(receiver: Receiver, **attributes: str) -> list[Event]:
    """The events of censuses that have these attributes."""
    wanted = {f"celery.memory.census.{name}": value for name, value in attributes.items()}
    return [
        event
        for event in list(receiver.received.events)
        if event.name == "celery.memory.census" and wanted.items() <= event.attributes.items()
    ]


def test_of_a_million_objects_the_ten_thousand_new_ones_are_named_with_what_holds_them(
    start: Start, broker: Broker, receiver: Receiver
) -> None:
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        assert worker.run("crowd", CROWD) == CROWD
        worker.run("keep_orders", 1)
        task = f"{APP}.keep_orders"
        answer, _ = worker.remote(
            "control", "memory_census", str(RUNS), "--task", task, broker=broker
        )
        assert f"census 1 begins: objects that are there after the next {RUNS} runs of" in answer
        assert "census 1 is being taken" in worker.command("memory_census")["error"]
        view = complete(worker, "keep_orders", NEW)
        worker.stop()
    assert [row["problem"] for row in view["objects"] if row["problem"]] == []
    rows = {row["type"]: row for row in view["objects"]}
    order = rows[f"{APP}.Order"]
    # It takes a run or two until there is time for the second count.
    assert order["runs"] >= RUNS
    assert order["growth"] == pytest.approx(order["runs"] * NEW, rel=0.01)
    assert (order["holder"], order["alike"]) == (CHAIN, order["sampled"])
    (event,) = events(receiver, type=f"{APP}.Order")
    assert event.attributes["celery.memory.census.holder"] == CHAIN
    assert event.attributes["celery.task.name"] == task
    print(f"\nlongest hold of a run: {event.attributes['celery.memory.census.hold'] * 1e3:.0f} ms")


@pytest.mark.parametrize(
    ("pool", "slots"),
    [
        (["--pool=solo"], {"main"}),
        (["--pool=threads", "--concurrency=1"], {"main"}),
        (["--pool=gevent", "--concurrency=2"], {"main"}),
        (["--concurrency=2"], {"0", "1"}),
    ],
    ids=["solo", "threads", "gevent", "prefork"],
)
def test_in_every_pool_each_process_that_runs_tasks_takes_its_census(
    start: Start, pool: list[str], slots: set[str]
) -> None:
    with start(arguments=pool, environ=CONTROLLED) as worker:
        assert "census 1 begins" in worker.command("memory_census", amount=str(RUNS))["ok"]
        view = complete(worker, "keep_orders", 30)
    rows = [row for row in view["objects"] if row["type"] == f"{APP}.Order"]
    assert {row["slot"] for row in rows} == slots
    assert all(row["growth"] == 30 * row["runs"] for row in rows)
    assert {row["holder"] for row in rows} == {CHAIN}
    texts = [row for row in view["objects"] if row["type"] == "str"]
    assert {row["slot"] for row in texts} == slots
    # Of a list that had less than a hundred, as many are left out.
    missing = {row["slot"]: 30 * row["runs"] - row["growth"] for row in texts}
    assert {slot: count for slot, count in missing.items() if not 0 <= count <= 100} == {}
    assert {row["holder"] for row in texts} == {f"{APP}.TEXTS"}


def test_where_children_end_before_the_census_does_that_is_said(
    start: Start, receiver: Receiver
) -> None:
    recycled = ["--concurrency=1", "--max-tasks-per-child=3"]
    with start(arguments=recycled, environ=CONTROLLED) as worker:
        worker.command("memory_census", amount=str(RUNS))
        for _ in range(7):
            worker.run("keep_orders", 10)

        def said() -> bool:
            problems = [
                e.attributes.get("celery.memory.census.problem", "") for e in events(receiver)
            ]
            # Its successor takes part, too.
            return sum("the process ended after" in problem for problem in problems) > 1

        wait_until("two events say so", said, 30)
        assert worker.run("noop") is None


def test_in_a_process_that_is_near_a_limit_there_is_no_census(start: Start) -> None:
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        worker.run("crowd", CROWD // 4)
        worker.run("limit_memory", 1 << 20)
        worker.command("memory_census", amount="3")
        view = complete(worker, "noop")
    (row,) = view["objects"]
    assert row["problem"].endswith("MiB, and a limit of memory is near")
