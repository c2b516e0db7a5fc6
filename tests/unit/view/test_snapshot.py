"""The snapshot says of each worker what its telemetry says, in numbers that JSON has."""

from __future__ import annotations

import json

from otel_celery_memory import conventions as c
from otel_celery_memory.leaks.verdict import State
from otel_celery_memory.view.snapshot import Surroundings, snapshot
from otel_celery_memory.view.source_lines import Source
from otel_celery_memory.view.store import Store
from tests.unit.view.examples import (
    AROUND,
    BEGAN_S,
    MIB,
    START_NS,
    WORKER,
    event,
    leak,
    retained,
    rss,
    runs,
    sample,
    shown,
    shown_worker,
    store_with,
)


def test_a_store_that_got_nothing_says_so_whole() -> None:
    assert shown(Store(BEGAN_S)) == {
        "version": c.VERSION,
        "now": BEGAN_S + 1,
        "since": BEGAN_S,
        "endpoint": "http://127.0.0.1:4318",
        "grpc": None,
        "app": None,
        "live": True,
        "left_out": 0,
        "verdicts": [],
        "workers": [],
        "timeline": [],
    }


def test_a_process_is_told_with_what_is_known_of_it_and_null_for_the_rest() -> None:
    store = store_with(
        rss("0", 40 * MIB),
        sample(c.MEMORY_UNIQUE, 10 * MIB, of={c.SLOT: "0"}),
        sample(c.OPEN_FILES, 20, of={c.SLOT: "0"}),
        sample(c.EXHAUSTION_TIME, 7_200, of={c.SLOT: "0"}),
    )
    assert shown_worker(store)["processes"] == [
        {
            "slot": "0",
            "gone": False,
            "task": None,
            "rss": 40 * MIB,
            "unique": 10 * MIB,
            "copied": None,
            "descendants": None,
            "files": 20,
            "files_limit": None,
            "threads": None,
            "exhaustion": 7_200,
            "rss_over_time": {"times": [BEGAN_S], "values": [41_940_000.0]},
            "unique_over_time": {"times": [BEGAN_S], "values": [10_490_000.0]},
        }
    ]


def test_processes_come_in_the_order_of_the_pool() -> None:
    store = store_with(*(rss(slot, 1) for slot in ("reporter", "10", "9", "main", "²", "")))
    order = [each["slot"] for each in shown_worker(store)["processes"]]
    assert order == ["main", "9", "10", "", "reporter", "²"]


def test_a_task_s_retained_is_growth_less_shrinkage_of_a_sampled_run_without_warm_up() -> None:
    store = store_with(
        runs("a", 90),
        runs("a", 10, state="FAILURE"),
        runs("b", 100, exclusive=False),
        retained("a", 3_000, 6),
        retained("a", 1_000, 4, c.SHRINK),
        retained("a", 9_999, 1, c.WARM_UP),
        retained("b", 600, 10),
        sample(c.RSS_PEAK, 500, of={c.TASK_NAME: "a"}, count=9, highest=300.0),
        sample(c.TREE_PEAK, 500, of={c.TASK_NAME: "a"}, count=9, highest=400.0),
    )
    first, second = shown_worker(store)["tasks"]
    assert first == {
        "name": "a",
        "runs": 100,
        "failed": 10,
        "overlapped": 0,
        "retained": 200.0,
        "low": None,
        "high": None,
        "sampled": 10,
        "share": 20_000 / 26_000,
        "peak": 400.0,
        "rss_delta": None,
        "traced": None,
        "traced_runs": 0,
        "files": 0.0,
        "threads": 0.0,
        "growth": {"times": [BEGAN_S], "values": [20_000.0]},
    }
    assert (second["retained"], second["overlapped"]) == (60.0, 100)


def test_an_interval_is_told_once_several_exports_had_samples() -> None:
    store = store_with(runs("a", 10))
    for number in range(1, 30):
        wobble = 40 * (number % 2)
        store.take_metrics(
            WORKER, [retained("a", 1_000 * number + wobble, 10 * number)], BEGAN_S + number
        )
    (task,) = shown_worker(store)["tasks"]
    assert task["low"] < 100 < task["high"]
    assert 0 < task["high"] - task["low"] < 5


def test_a_worker_that_stopped_sending_is_silent_after_three_exports() -> None:
    store = store_with(rss("main", 1))
    for number in range(1, 4):
        store.take_metrics(WORKER, [rss("main", 1)], BEGAN_S + 15 * number)
    last_s = BEGAN_S + 45
    states = [shown_worker(store, last_s + after_s)["state"] for after_s in (0, 44, 46)]
    assert states == ["live", "live", "silent"]


def test_a_worker_whose_main_process_shut_down_has_ended_until_it_starts_again() -> None:
    ended = sample(c.PROCESS_EXITS, 1, of={c.SLOT: "main", c.EXIT_REASON: "shutdown"})
    store = store_with(rss("main", 1), ended)
    assert shown_worker(store)["state"] == "ended"
    store.take_metrics(WORKER, [rss("main", 1, START_NS + 99)], BEGAN_S + 1)
    assert shown_worker(store)["state"] == "live"


def test_limits_are_told_with_the_share_that_is_used() -> None:
    store = store_with(
        sample(c.MEMORY_LIMIT, 100, of={c.LIMIT_KIND: "cgroup"}),
        sample(c.LIMIT_UTILIZATION, 0.5, of={c.LIMIT_KIND: "cgroup"}),
        sample(c.MEMORY_LIMIT, 60, of={c.LIMIT_KIND: "max_memory_per_child"}),
    )
    assert shown_worker(store)["limits"] == [
        {"kind": "cgroup", "size": 100, "used": 0.5, "each": False},
        {"kind": "max_memory_per_child", "size": 60, "used": None, "each": True},
    ]


def test_a_verdict_has_every_attribute_of_its_event() -> None:
    verdict = leak(
        LEAK_RATE_LOW=10_035.0,
        LEAK_RATE_HIGH=10_854.0,
        LEAK_RUNS=4_100,
        LEAK_PROCESSES=6,
        LEAK_EXPLAINED=0.97,
        SITE_NAME="shop/feeds.py:41",
        SITE_SHARE=0.97,
        CODE_FILE="/app/shop/feeds.py",
        CODE_LINE=41,
        CODE_FUNCTION="import_feed",
        LEAK_HOLDER="shop.feeds._seen",
        LEAK_TYPES="dict, str",
        EXHAUSTION_TIME=25_200.0,
        MAX_TASKS_PER_CHILD=4_000,
    )
    (found,) = snapshot(
        store_with(events=(verdict,)),
        BEGAN_S + 1,
        AROUND,
        lambda path, line: Source(40, (path, str(line))),
    )["verdicts"]
    assert found == {
        "worker": 0,
        "state": "leaking",
        "kind": "python",
        "where": "task",
        "task": "feeds.refresh",
        "began": BEGAN_S,
        "changed": BEGAN_S,
        "text": "feeds.refresh leaks",
        "rate": 10_444.0,
        "rate_low": 10_035.0,
        "rate_high": 10_854.0,
        "runs": 4_100,
        "processes": 6,
        "explained": 0.97,
        "site": "shop/feeds.py:41",
        "site_share": 0.97,
        "path": "/app/shop/feeds.py",
        "line": 41,
        "function": "import_feed",
        "holder": "shop.feeds._seen",
        "types": "dict, str",
        "exhaustion": 25_200.0,
        "max_tasks": 4_000,
        "growth": None,
        "source": {"first": 40, "lines": ["/app/shop/feeds.py", "41"]},
    }


def test_a_gauge_of_a_leak_is_a_verdict_where_no_event_came() -> None:
    of = {
        c.TASK_NAME: "mail.send",
        c.LEAK_STATE: State.SUSPECTED.value,
        c.LEAK_KIND: "native",
        c.LEAK_WHERE: "task",
        c.SITE_NAME: "shop/mail.py:3",
    }
    rate = sample(c.LEAK_RATE, 512.0, of=of)
    known = sample(c.LEAK_RATE, 9.0, of={**of, c.TASK_NAME: "feeds.refresh"})
    found = shown(store_with(rate, known, events=(leak(),)))["verdicts"]
    assert [(each["task"], each["state"], each["rate"], each["site"]) for each in found] == [
        ("feeds.refresh", "leaking", 10_444.0, ""),
        ("mail.send", "suspected", 512.0, "shop/mail.py:3"),
    ]


def test_what_leaks_comes_before_what_may_and_before_what_has_ended() -> None:
    events = (
        leak(state=State.ENDED.value, TASK_NAME="ended"),
        leak(state=State.SUSPECTED.value, TASK_NAME="suspected"),
        leak(TASK_NAME="slow", LEAK_RATE=1.0),
        leak(TASK_NAME="fast", LEAK_RATE=9.0),
    )
    found = shown(store_with(events=events))["verdicts"]
    assert [each["task"] for each in found] == ["fast", "slow", "suspected", "ended"]


def test_a_site_is_told_with_its_stack() -> None:
    site = event(
        c.ALLOCATION_SITE.name,
        {
            c.SITE_RANK: 1,
            c.SITE_NAME: "a.py:2",
            c.CODE_FILE: "/a.py",
            c.CODE_LINE: 2,
            c.CODE_STACKTRACE: "/lib.py:1\n/a.py:2",
            c.SITE_SIZE: 64,
        },
    )
    (found,) = shown_worker(store_with(events=(site,)))["sites"]
    assert found["stack"] == ["/lib.py:1", "/a.py:2"]
    assert (found["name"], found["size"], found["rate"]) == ("a.py:2", 64, None)
    assert found["source"] is None


def test_what_is_left_out_of_a_long_list_of_tasks_is_counted() -> None:
    store = store_with(*(runs(f"task-{number}", 1) for number in range(2_000)))
    worker = shown_worker(store)
    assert (len(worker["tasks"]), worker["tasks_left_out"]) == (1_500, 500)


def test_every_snapshot_is_json() -> None:
    store = store_with(rss("0", 1.5), runs("a", 1), retained("a", 3, 1), events=(leak(),))
    store.take_events(WORKER, [event(c.PRESSURE.name, body="near")], BEGAN_S)
    made = snapshot(store, BEGAN_S + 1, Surroundings("http://127.0.0.1:4318", "shop", live=False))
    assert json.loads(json.dumps(made, allow_nan=False)) == made
