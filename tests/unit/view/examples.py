"""A worker's telemetry, made by hand: samples and events as the store takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otel_celery_memory import conventions as c
from otel_celery_memory.leaks.verdict import State
from otel_celery_memory.view.otlp import LoggedEvent, Sample, Sender, Value
from otel_celery_memory.view.snapshot import Plain, Surroundings, snapshot
from otel_celery_memory.view.store import Store

WORKER = Sender("shop", "celery@box", "box")
BEGAN_S = 1_000_000.0
AROUND = Surroundings("http://127.0.0.1:4318")
MIB = 1 << 20
START_NS = 10**18


def sample(metric: c.Metric | str, value: float, start_ns: int = START_NS, **more: Any) -> Sample:
    """A point; ``of`` has its attributes."""
    name = metric if isinstance(metric, str) else metric.name
    of: Mapping[str, Value] = more.pop("of", {})
    return Sample(name, of, start_ns, start_ns + 1, value, **more)


def rss(slot: str, size_bytes: float, start_ns: int = START_NS) -> Sample:
    """RSS of a slot."""
    return sample(c.MEMORY, size_bytes, start_ns, of={c.SLOT: slot})


def runs(
    task: str,
    count: int,
    start_ns: int = START_NS,
    *,
    state: str = "SUCCESS",
    exclusive: bool = True,
) -> Sample:
    """Runs of a task."""
    of = {c.TASK_NAME: task, c.TASK_STATE: state, c.EXCLUSIVE: exclusive}
    return sample(c.MEASURED, count, start_ns, of=of)


def retained(task: str, size_bytes: float, count: int, direction: str = c.GROW) -> Sample:
    """What sampled runs of a task retained."""
    of = {c.TASK_NAME: task, c.DIRECTION: direction}
    return sample(c.HEAP_RETAINED, size_bytes, of=of, count=count)


def event(
    name: str, of: Mapping[str, Value] | None = None, time_s: float = BEGAN_S, body: str = ""
) -> LoggedEvent:
    """An event; ``of`` has its attributes."""
    return LoggedEvent(name, "WARN", body, round(time_s * 1e9), of or {})


def leak(time_s: float = BEGAN_S, state: str = State.LEAKING.value, **more: Value) -> LoggedEvent:
    """A verdict on ``feeds.refresh``; ``more`` are attributes by their constants' names."""
    of: dict[str, Value] = {
        c.TASK_NAME: "feeds.refresh",
        c.LEAK_STATE: state,
        c.LEAK_KIND: "python",
        c.LEAK_WHERE: "task",
        c.LEAK_RATE: 10_444.0,
    }
    of |= {getattr(c, key): value for key, value in more.items()}
    return LoggedEvent(c.LEAK.name, "WARN", "feeds.refresh leaks", round(time_s * 1e9), of)


def store_with(*samples: Sample, events: tuple[LoggedEvent, ...] = ()) -> Store:
    """A store that got these of one worker."""
    store = Store(BEGAN_S)
    store.take_metrics(WORKER, samples, BEGAN_S)
    store.take_events(WORKER, events, BEGAN_S)
    return store


def shown(store: Store, now_s: float = BEGAN_S + 1) -> Plain:
    """The snapshot of a store."""
    return snapshot(store, now_s, AROUND)


def shown_worker(store: Store, now_s: float = BEGAN_S + 1) -> Plain:
    """The snapshot's only worker."""
    (worker,) = shown(store, now_s)["workers"]
    return dict(worker)
