"""The store keeps what is newest of each worker, and never more than its bounds."""

from __future__ import annotations

import pytest

from otel_celery_memory import conventions as c
from otel_celery_memory.view import store as module
from otel_celery_memory.view.otlp import Sample, Sender, Value
from otel_celery_memory.view.store import Store
from tests.unit.view.examples import (
    BEGAN_S,
    START_NS,
    WORKER,
    event,
    leak,
    rss,
    runs,
    sample,
    shown,
    shown_worker,
    store_with,
)


def test_a_total_is_the_newest_of_each_start_added_up() -> None:
    """A reporter that was started again counts from zero."""
    store = store_with(runs("a", 5), runs("a", 7))
    store.take_metrics(WORKER, [runs("a", 2, START_NS + 9)], BEGAN_S)
    assert shown_worker(store)["runs"] == 9


def test_starts_without_end_are_added_up_in_bounded_room() -> None:
    store = store_with(*(runs("a", 1, START_NS + number) for number in range(1_000)))
    assert shown_worker(store)["runs"] == 1_000
    (stream,) = store.workers[WORKER].streams.all(c.MEASURED.name)
    assert len(stream.parts) <= 8


def test_deltas_are_added_up() -> None:
    store = Store(BEGAN_S)
    for _ in range(3):
        store.take_metrics(
            WORKER, [sample(c.MEASURED, 2, of={c.TASK_NAME: "a"}, delta=True)], BEGAN_S
        )
    assert shown_worker(store)["runs"] == 6


def test_a_slot_that_an_export_has_no_more_is_told_as_gone_with_its_last_size() -> None:
    store = store_with(rss("0", 5), rss("1", 6))
    store.take_metrics(WORKER, [rss("0", 7)], BEGAN_S + 1)
    rows = shown_worker(store)["processes"]
    assert [(row["slot"], row["rss"], row["gone"]) for row in rows] == [
        ("0", 7, False),
        ("1", 6, True),
    ]


def test_metrics_that_the_page_does_not_show_take_no_room() -> None:
    store = store_with(sample("somebody.elses", 1), sample(c.MALLOC_USED, 1, of={c.SLOT: "0"}))
    assert len(store.workers[WORKER].streams) == 0
    assert store.left_out == 0


def test_streams_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAMS_MAX", 10)
    store = store_with(*(runs(f"task-{number}", 1) for number in range(25)))
    assert len(store.workers[WORKER].streams) == 10
    assert shown(store)["left_out"] == 15


def test_the_bound_is_one_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAMS_MAX", 10)
    store = store_with(*(runs(f"task-{number}", 1) for number in range(8)))
    other = Sender("shop", "other@box", "box")
    store.take_metrics(other, [runs(f"task-{number}", 1) for number in range(8)], BEGAN_S)
    assert [len(each.streams) for each in store.workers.values()] == [8, 2]


def test_growth_over_time_is_kept_of_so_many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TASKS_MAX", 3)
    of = [{c.TASK_NAME: f"task-{number}", c.DIRECTION: c.GROW} for number in range(9)]
    store = store_with(*(sample(c.HEAP_RETAINED, 9, of=each, count=1) for each in of))
    assert len(store.workers[WORKER].streams.growth) == 3


def test_the_worker_that_was_silent_longest_makes_room_for_another_one() -> None:
    store = Store(BEGAN_S)
    for number in range(module.WORKERS_MAX + 5):
        sender = Sender("shop", f"celery-{number}", "box")
        store.take_metrics(sender, [rss("main", 1)], BEGAN_S + number)
    nodes = [sender.node for sender in store.workers]
    assert len(nodes) == module.WORKERS_MAX
    assert nodes[0] == "celery-5"


def test_a_ranking_replaces_the_one_before_and_is_replaced_by_no_older_one() -> None:
    def site(time_s: float, rank: int, name: str) -> None:
        of: dict[str, Value] = {c.SITE_RANK: rank, c.SITE_NAME: name}
        store.take_events(WORKER, [event(c.ALLOCATION_SITE.name, of, time_s)], BEGAN_S)

    store = store_with()
    site(BEGAN_S, 1, "old:1")
    site(BEGAN_S, 2, "old:2")
    site(BEGAN_S + 60, 1, "new:1")
    site(BEGAN_S, 3, "old:3")
    assert [each["name"] for each in shown_worker(store)["sites"]] == ["new:1"]


def test_a_ranking_has_a_bound() -> None:
    events = [
        event(c.ALLOCATION_SITE.name, {c.SITE_RANK: rank, c.SITE_NAME: "a.py:1"})
        for rank in range(1, 1_000)
    ]
    assert len(shown_worker(store_with(events=tuple(events)))["sites"]) == module.SITES_MAX


def test_two_senders_of_one_name_are_noticed_and_told_for_a_while() -> None:
    store = store_with(rss("main", 1, START_NS))
    store.take_metrics(WORKER, [rss("main", 1, START_NS + 5)], BEGAN_S + 1)
    assert shown_worker(store, BEGAN_S + 1)["two"] is False, "it may have been started again"
    store.take_metrics(WORKER, [rss("main", 1, START_NS)], BEGAN_S + 2)
    assert shown_worker(store, BEGAN_S + 3)["two"] is True
    assert shown_worker(store, BEGAN_S + 100)["two"] is False


def restarted(start_ns: int, restarts: int = 0) -> list[Sample]:
    """An export of a worker or of a reporter that began then."""
    return [
        rss("main", 1, start_ns),
        runs("feeds.refresh", 3, start_ns),
        sample(c.REPORTER_RESTARTS, restarts, start_ns),
    ]


def test_of_a_worker_that_is_started_again_nothing_is_told_of_the_one_before() -> None:
    store = store_with(*restarted(START_NS))
    store.take_events(WORKER, [leak(BEGAN_S)], BEGAN_S)
    store.take_metrics(WORKER, restarted(START_NS + 9), BEGAN_S + 60)
    assert shown_worker(store)["runs"] == 3
    (verdict,) = shown(store)["verdicts"]
    assert (verdict["state"], verdict["growth"]) == ("ended", None)
    assert verdict["text"].startswith("Of the worker before this one: feeds.refresh leaks")
    assert shown(store)["timeline"][0]["lines"] == [
        "celery@box was started again: its numbers begin anew"
    ]
    # It leaks, too.
    store.take_events(WORKER, [leak(BEGAN_S + 100)], BEGAN_S + 100)
    (verdict,) = shown(store)["verdicts"]
    assert (verdict["state"], verdict["began"]) == ("leaking", BEGAN_S + 100)


def test_a_reporter_that_is_started_again_is_of_the_same_worker() -> None:
    store = store_with(*restarted(START_NS))
    store.take_events(WORKER, [leak(BEGAN_S)], BEGAN_S)
    store.take_metrics(WORKER, restarted(START_NS + 9, restarts=1), BEGAN_S + 60)
    assert shown_worker(store)["runs"] == 6
    assert [verdict["state"] for verdict in shown(store)["verdicts"]] == ["leaking"]


def test_recycled_children_are_one_item_for_each_minute_and_reason() -> None:
    def exits(count: int, reason: str = "max_tasks", slot: str = "0") -> list[Sample]:
        return [sample(c.PROCESS_EXITS, count, of={c.SLOT: slot, c.EXIT_REASON: reason})]

    store = store_with(*exits(4))
    assert shown(store)["timeline"] == [], "what was before is not known to be new"
    for second, count in ((1, 5), (20, 7), (200, 8)):
        store.take_metrics(WORKER, exits(count), BEGAN_S + second)
    store.take_metrics(WORKER, exits(9, "shutdown", "main"), BEGAN_S + 201)
    items = [(item["kind"], item["subject"], item["count"]) for item in shown(store)["timeline"]]
    assert items == [("recycled", "max_tasks", 1), ("recycled", "max_tasks", 3)]


def test_a_census_is_one_item_in_which_processes_that_found_the_same_are_counted() -> None:
    def found(slot: str, time_s: float, growth: int = 100, type_name: str = "str") -> None:
        of: dict[str, Value] = {
            **{c.TASK_NAME: "feeds.refresh", c.SLOT: slot, c.PROCESS_PID: 100 + int(slot)},
            **{c.CENSUS_TYPE: type_name, c.CENSUS_GROWTH: growth, c.CENSUS_HOLDER: "shop.SEEN"},
        }
        body = f"worker process {slot} has {growth} more objects of {type_name}"
        store.take_events(WORKER, [event(c.CENSUS.name, of, BEGAN_S + time_s, body)], BEGAN_S)

    store = store_with()
    for slot in range(8):
        found(str(slot), slot * 10)
    found("3", 30, 7, "list")
    (item,) = shown(store)["timeline"]
    assert item["grown"] == [
        {"type": "str", "holder": "shop.SEEN", "growth": 800, "processes": 8},
        {"type": "list", "holder": "shop.SEEN", "growth": 7, "processes": 1},
    ]
    assert len(item["lines"]) == 9, "what each process said is there still"
    found("0", 100)
    assert [each["grown"][0]["processes"] for each in shown(store)["timeline"]] == [1, 8]


def test_a_file_is_known_once_an_event_names_it() -> None:
    store = store_with()
    assert not store.was_named("/app/feeds.py")
    store.take_events(
        WORKER, [event(c.ALLOCATION_SITE.name, {c.CODE_FILE: "/app/feeds.py"})], BEGAN_S
    )
    assert store.was_named("/app/feeds.py")


def test_files_that_are_known_have_a_bound() -> None:
    events = [
        event(c.ALLOCATION_SITE.name, {c.CODE_FILE: f"/app/{number}.py"})
        for number in range(module.FILES_MAX + 10)
    ]
    store = store_with(events=tuple(events))
    assert not store.was_named(f"/app/{module.FILES_MAX}.py")


def test_whatever_comes_changes_the_version() -> None:
    store = Store(BEGAN_S)
    seen = {store.version}
    store.take_metrics(WORKER, [rss("main", 1)], BEGAN_S)
    seen.add(store.version)
    store.take_events(WORKER, [], BEGAN_S)
    assert len(seen | {store.version}) == 3
