"""When an event is sent to consumers of Celery's events, and what is in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery.events.state import Worker as KnownWorker

from otel_celery_memory.worker.lifecycle.worker_events import EVENT, WorkerEvents, fields_of

VIEW = {
    "processes": [{"rss": 100, "unique": 60}, {"rss": 50, "unique": 40}],
    "verdicts": [{"text": "shop.refresh leaks"}],
}
FIELDS = {"rss": 150, "unique": 100, "processes": 2, "verdicts": ["shop.refresh leaks"]}


class Bench:
    """A worker with a dispatcher, at a time that is set."""

    def __init__(self, interval_s: float, view: Any = VIEW) -> None:
        self.now_s = 1_000.0
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.dispatcher: Any = SimpleNamespace(
            enabled=True, send=lambda name, **fields: self.sent.append((name, fields))
        )
        self.worker = SimpleNamespace(consumer=SimpleNamespace(event_dispatcher=self.dispatcher))
        self.view = view
        self.events = WorkerEvents(
            self.worker, lambda: self.view, interval_s, clock_s=lambda: self.now_s
        )


def test_an_event_is_sent_at_most_every_so_many_seconds() -> None:
    bench = Bench(10)
    for _ in range(25):
        bench.events.send_if_due()
        bench.now_s += 1
    assert bench.sent == [(EVENT, FIELDS)] * 3


def test_none_is_sent_where_it_is_switched_off() -> None:
    bench = Bench(0)
    bench.events.send_if_due()
    assert bench.sent == []


def test_it_is_sent_once_there_is_a_view_and_a_connection() -> None:
    bench = Bench(10, view=None)
    bench.events.send_if_due()
    bench.view, bench.dispatcher.enabled = VIEW, False
    bench.events.send_if_due()
    bench.dispatcher.enabled, bench.worker.consumer.event_dispatcher = True, None
    bench.events.send_if_due()
    bench.worker.consumer = None
    bench.events.send_if_due()
    assert bench.sent == []
    bench.worker.consumer = SimpleNamespace(event_dispatcher=bench.dispatcher)
    bench.events.send_if_due()
    assert len(bench.sent) == 1


def test_unique_memory_is_of_all_processes_or_unknown() -> None:
    processes = [{"rss": 100, "unique": 60}, {"rss": None, "unique": None}]
    fields = fields_of({**VIEW, "processes": processes})
    assert (fields["rss"], fields["unique"]) == (100, None)


def test_verdicts_are_few_and_short() -> None:
    fields = fields_of({**VIEW, "verdicts": [{"text": "x" * 5_000}] * 20})
    assert [len(each) for each in fields["verdicts"]] == [1_000] * 5


def test_no_field_has_a_name_that_celery_s_state_of_workers_uses() -> None:
    assert set(FIELDS) & set(KnownWorker._fields) == set()
