"""A leak is one verdict from its begin to its end, and what happened is told once."""

from __future__ import annotations

from otel_celery_memory import conventions as c
from otel_celery_memory.leaks.verdict import State
from otel_celery_memory.view.timeline import ITEMS_MAX
from otel_celery_memory.view.verdicts import VERDICTS_MAX
from tests.unit.view.examples import BEGAN_S, WORKER, event, leak, shown, store_with


def test_a_verdict_that_changes_keeps_its_begin() -> None:
    store = store_with(events=(leak(state=State.SUSPECTED.value), leak(BEGAN_S + 60)))
    (found,) = shown(store)["verdicts"]
    assert (found["state"], found["began"], found["changed"]) == (
        "leaking",
        BEGAN_S,
        BEGAN_S + 60,
    )


def test_a_leak_that_begins_again_begins_anew() -> None:
    store = store_with(events=(leak(), leak(BEGAN_S + 60, State.ENDED.value), leak(BEGAN_S + 90)))
    (found,) = shown(store)["verdicts"]
    assert (found["state"], found["began"]) == ("leaking", BEGAN_S + 90)


def test_an_older_event_that_comes_late_changes_nothing() -> None:
    store = store_with(events=(leak(BEGAN_S + 60, State.ENDED.value), leak(BEGAN_S)))
    (found,) = shown(store)["verdicts"]
    assert found["state"] == "ended"


def test_a_kind_of_memory_that_becomes_known_is_the_same_leak() -> None:
    store = store_with(events=(leak(LEAK_KIND="native"), leak(LEAK_KIND="python")))
    assert [each["kind"] for each in shown(store)["verdicts"]] == ["python"]


def test_a_task_may_leak_memory_and_descriptors() -> None:
    store = store_with(events=(leak(), leak(LEAK_KIND="file_descriptors")))
    assert len(shown(store)["verdicts"]) == 2


def test_verdicts_have_a_bound() -> None:
    events = tuple(leak(TASK_NAME=f"task-{number}") for number in range(VERDICTS_MAX + 50))
    assert len(shown(store_with(events=events))["verdicts"]) == VERDICTS_MAX


def test_pressure_on_several_processes_is_one_item_with_a_line_for_each() -> None:
    events = tuple(
        event(c.PRESSURE.name, {c.LIMIT_KIND: "cgroup"}, body=f"process {number}")
        for number in range(3)
    )
    (item,) = shown(store_with(events=events))["timeline"]
    assert item["subject"] == "cgroup"
    assert item["lines"] == ["process 0", "process 1", "process 2"]


def test_losses_are_an_item_each_with_what_names_them() -> None:
    lost = event(c.PROCESS_LOST.name, {c.TASK_NAME: "a", c.SLOT: "0", c.PROCESS_PID: 7})
    found = shown(store_with(events=(lost, lost)))["timeline"]
    assert [item["kind"] for item in found] == ["lost", "lost"]
    assert found[0]["details"] == {c.TASK_NAME: "a", c.SLOT: "0", c.PROCESS_PID: 7}


def test_the_timeline_has_the_newest_first_and_a_bound() -> None:
    events = tuple(
        event(c.PROCESS_LOST.name, time_s=BEGAN_S + number) for number in range(ITEMS_MAX + 10)
    )
    times = [item["time"] for item in shown(store_with(events=events))["timeline"]]
    assert len(times) == ITEMS_MAX
    assert times == sorted(times, reverse=True)
    assert times[0] == BEGAN_S + ITEMS_MAX + 9


def test_items_of_a_worker_that_made_room_are_not_told() -> None:
    store = store_with(events=(event(c.PROCESS_LOST.name), leak()))
    del store.workers[WORKER]
    assert (shown(store)["timeline"], shown(store)["verdicts"]) == ([], [])
