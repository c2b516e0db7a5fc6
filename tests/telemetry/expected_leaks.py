"""What comes of verdicts: every metric and event, written down by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from otel_celery_memory.leaks.verdict import Forecast, Interval, Kind, State, Where
from tests.telemetry.history import S
from tests.telemetry.payload import Plain, points
from tests.unit.leaks.examples import VERDICT

assert VERDICT.place is not None
assert VERDICT.holder is not None
assert VERDICT.forecast is not None
LEAKING = replace(
    VERDICT,
    condition="in runs that fail",
    place=replace(VERDICT.place, via="threading.py:265"),
    max_memory_per_child_bytes=500 << 20,
    reasons=("64.0 MiB came together", "it does not slow down"),
)
SUSPECTED = replace(
    VERDICT,
    state=State.SUSPECTED,
    kind=Kind.FILE_DESCRIPTORS,
    where=Where.RECEIVER,
    task="",
    rate=Interval(0.5, 0.25, math.inf),
    explained=None,
    place=None,
    holder=None,
    forecast=Forecast("main", "cgroup", 2 << 30, Interval(60, 30, 90)),
    max_tasks_per_child=None,
)
ENDED = replace(VERDICT, state=State.ENDED, kind=Kind.NATIVE, place=None, holder=None)
VERDICTS = (SUSPECTED, ENDED, LEAKING)

_LEAKING = {
    "celery.task.name": "shop.tasks.import_feed",
    "celery.memory.leak.kind": "python",
    "celery.memory.leak.where": "task",
    "celery.memory.leak.state": "leaking",
    "celery.memory.site.name": "shop/feeds.py:41",
    "celery.memory.leak.holder": "shop.feeds._seen",
}
_SUSPECTED = {
    "celery.memory.leak.kind": "file_descriptors",
    "celery.memory.leak.where": "receiver",
    "celery.memory.leak.state": "suspected",
}
_ENDED = {
    "celery.task.name": "shop.tasks.import_feed",
    "celery.memory.leak.kind": "native",
    "celery.memory.leak.where": "task",
    "celery.memory.leak.state": "ended",
}


def gauge(unit: str, *values: tuple[Plain, float]) -> Plain:
    return {"unit": unit, "kind": "gauge", "points": points(*values)}


EXPECTED_LEAK_GAUGES = {
    # A rate of descriptors is in no bytes, and what has ended leaves nothing behind any more.
    "celery.memory.leak.rate": gauge("By/{task}", (_LEAKING, 10_445)),
    "celery.memory.leak.active": gauge("{leak}", (_LEAKING, 1), (_SUSPECTED, 1), (_ENDED, 0)),
    # The minute of the suspicion is not in it.
    "celery.memory.exhaustion.time": gauge("s", ({"celery.worker.slot": "0"}, 25_200.0)),
}


def leak_event(severity: tuple[str, int], body: str, **attributes: Any) -> Plain:
    return {
        "name": "celery.memory.leak",
        "severity": severity,
        "body": body,
        "time_ns": (9 * S, 9 * S),
        "attributes": attributes,
        "span": (0, 0),
    }


EXPECTED_LEAKS = [
    leak_event(
        ("INFO", 9),
        "A receiver of Celery's signals may leak 0.5 open files a run (0.25 to unbounded, 4,100 "
        "runs in 6 processes, since 00:00). At this pace the worker reaches its limit of 2.0 GiB "
        "(cgroup) in about 1 min (30 s to 2 min). Close what is opened, or open it once in each "
        "process.",
        **_SUSPECTED,
        **{
            "celery.memory.leak.rate": 0.5,
            "celery.memory.leak.rate_low": 0.25,
            "celery.memory.leak.runs": 4_100,
            "celery.memory.leak.processes": 6,
            "celery.memory.exhaustion.time": 60.0,
        },
    ),
    leak_event(
        ("INFO", 9),
        "shop.tasks.import_feed kept 10.2 KiB a run (9.8 KiB to 10.6 KiB, 4,100 runs in 6 "
        "processes, since 00:00, until 01:00). Native memory, which no Python object accounts for. "
        "Not explained by it: 3% of the growth.",
        **_ENDED,
        **{
            "celery.memory.leak.rate": 10_445.0,
            "celery.memory.leak.rate_low": 10_035.0,
            "celery.memory.leak.rate_high": 10_854.0,
            "celery.memory.leak.runs": 4_100,
            "celery.memory.leak.processes": 6,
            "celery.memory.leak.explained": 0.97,
        },
    ),
    leak_event(
        ("WARN", 13),
        "shop.tasks.import_feed leaks 10.2 KiB a run in runs that fail (9.8 KiB to 10.6 KiB, 4,100 "
        "runs in 6 processes, since 00:00). Python objects: +3 dict, +2 str a run, held by "
        "shop.feeds._seen. Allocated at shop/feeds.py:41 in remember, through threading.py:265 "
        "(97% of it). At this pace process 0 reaches its limit of 2.0 GiB (cgroup) in about 7 h (6 "
        "h to 9 h); max_tasks_per_child of at most 4,000 keeps it under until it is fixed; "
        "worker_max_memory_per_child of 512,000 (KiB) lets healthy runs live. Not explained by it: "
        "3% of the growth. Leaking: 64.0 MiB came together; it does not slow down. Give what holds "
        "them a bound, or let go of them when the run ends.",
        **_LEAKING,
        **{
            "celery.memory.leak.rate": 10_445.0,
            "celery.memory.leak.rate_low": 10_035.0,
            "celery.memory.leak.rate_high": 10_854.0,
            "celery.memory.leak.runs": 4_100,
            "celery.memory.leak.processes": 6,
            "celery.memory.leak.explained": 0.97,
            "celery.memory.leak.condition": "in runs that fail",
            "celery.memory.leak.reason": "64.0 MiB came together; it does not slow down",
            "celery.memory.site.share": 0.97,
            "celery.memory.site.via": "threading.py:265",
            "code.file.path": "/app/shop/feeds.py",
            "code.line.number": 41,
            "code.function.name": "remember",
            "celery.memory.leak.types": "+3 dict, +2 str",
            "celery.memory.exhaustion.time": 25_200.0,
            "celery.memory.max_tasks_per_child": 4_000,
            "celery.memory.max_memory_per_child": 524_288_000,
        },
    ),
]
