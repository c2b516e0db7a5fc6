"""What comes of the history: every metric and event, written down by hand."""

from __future__ import annotations

from typing import Any

from otel_celery_memory.telemetry.events import LostProcess, ProcessSnapshot
from tests.telemetry.history import SPAN_ID, TRACE, S
from tests.telemetry.payload import Plain, distribution, points

GROW = {"celery.task.name": "app.grow"}
SHRINK = {"celery.task.name": "app.shrink"}
UP, DOWN = {"celery.memory.direction": "grow"}, {"celery.memory.direction": "shrink"}
MAIN_SLOT, FIRST_SLOT, SECOND_SLOT = ({"celery.worker.slot": slot} for slot in ("main", "0", "1"))


def exemplar(value: int) -> dict[str, Any]:
    return {"exemplars": [(value, TRACE, SPAN_ID, {})]}


def histogram(*distributions: Plain) -> Plain:
    return {"unit": "By", "kind": "cumulative histogram", "points": list(distributions)}


def level(unit: str, *values: tuple[Plain, int]) -> Plain:
    return {"unit": unit, "kind": "cumulative up-down counter", "points": points(*values)}


def counter(unit: str, *values: tuple[Plain, int]) -> Plain:
    return {"unit": unit, "kind": "cumulative counter", "points": points(*values)}


def measured(task: str, state: str, exclusive: bool) -> Plain:
    return {
        "celery.task.name": task,
        "celery.task.state": state,
        "celery.memory.exclusive": exclusive,
    }


EXPECTED_METRICS = {
    "celery.task.memory.rss.delta": histogram(
        distribution(UP | GROW, [70_000, 0], **exemplar(70_000)),
        distribution(DOWN | SHRINK, [4_000_000]),
    ),
    "celery.task.memory.rss.peak": histogram(
        distribution(GROW, [300_000, 5_000_000_000], **exemplar(300_000)),
        distribution(SHRINK, [0]),
    ),
    "celery.task.memory.rss.retained": histogram(
        distribution(UP | GROW, [65_536]),
        distribution(DOWN | SHRINK, [4_065_536]),
    ),
    "celery.task.memory.traced.delta": histogram(
        distribution(UP | GROW, [60_000], **exemplar(60_000))
    ),
    "celery.task.memory.traced.peak": histogram(distribution(GROW, [250_000], **exemplar(250_000))),
    "celery.task.memory.measured": counter(
        "{task}",
        (measured("app.shared", "SUCCESS", False), 1),
        (measured("app.grow", "SUCCESS", True), 2),
        (measured("app.shrink", "FAILURE", True), 1),
    ),
    "celery.worker.memory": level("By", (FIRST_SLOT, 11), (MAIN_SLOT, 21)),
    "celery.worker.memory.virtual": level("By", (FIRST_SLOT, 12)),
    "celery.worker.memory.swap": level("By", (FIRST_SLOT, 0)),
    "celery.worker.memory.unique": level("By", (FIRST_SLOT, 14)),
    "celery.worker.memory.proportional": level("By", (FIRST_SLOT, 15)),
    "celery.worker.open_files": level("{file}", (FIRST_SLOT, 16)),
    "celery.worker.open_files.limit": level("{file}", (FIRST_SLOT, 17)),
    "celery.worker.memory.limit": level(
        "By",
        ({"celery.memory.limit.kind": "cgroup"}, 1_000),
        ({"celery.memory.limit.kind": "cgroup_high"}, 950),
        ({"celery.memory.limit.kind": "cgroup_swap"}, 70),
        ({"celery.memory.limit.kind": "host"}, 4_000),
        ({"celery.memory.limit.kind": "max_memory_per_child"}, 3_000),
        ({"celery.memory.limit.kind": "rlimit_as"}, 5_000),
        ({"celery.memory.limit.kind": "rlimit_data"}, 6_000),
    ),
    "celery.worker.memory.cgroup": level("By", ({}, 900)),
    "celery.worker.memory.cgroup.swap": level("By", ({}, 60)),
    "celery.worker.heap.blocks": level("{block}", (FIRST_SLOT, 1_234), (SECOND_SLOT, 4_321)),
    "celery.worker.heap.malloc.used": level("By", (FIRST_SLOT, 5_000)),
    "celery.worker.heap.malloc.free": level("By", (FIRST_SLOT, 600)),
    "celery.memory.frames.dropped": counter("{frame}", ({}, 7)),
    "celery.memory.reporter.restarts": counter("{restart}", ({}, 2)),
}

EXPECTED_EXITS = counter(
    "{process}",
    ({"celery.worker.exit.reason": "max_tasks", **FIRST_SLOT}, 1),
    ({"celery.worker.exit.reason": "oom_kill", **SECOND_SLOT}, 1),
    ({"celery.worker.exit.reason": "shutdown", **MAIN_SLOT}, 1),
)

EXPECTED_LOSS = {
    "name": "celery.worker.process_lost",
    "severity": ("ERROR", 17),
    "body": (
        "worker process 1 (pid 102) was lost in app.die [4]: oom_kill, "
        "RSS last seen 60,000,000 bytes"
    ),
    "time_ns": (5 * S, 5 * S),
    "attributes": {
        "celery.worker.slot": "1",
        "process.pid": 102,
        "celery.worker.exit.reason": "oom_kill",
        "celery.worker.exit.signal": 9,
        "celery.worker.process.rss": 60_000_000,
        "celery.worker.process.rss_peak": 5_000_001_000,
        "celery.task.name": "app.die",
        "celery.task.id": "4",
        "celery.task.age": 3.0,
        "celery.task.memory.rss.start": 60_000_000,
        "celery.worker.cgroup.oom_kills": 3,
    },
    "span": (0, 0),
}


LATE = LostProcess(
    ProcessSnapshot("0", 55, 7, 8, "app.die", "9", 1.5, 6), "killed", None, None, told_late=True
)
EXPECTED_LATE_LOSS = {
    "name": "celery.worker.process_lost",
    "severity": ("ERROR", 17),
    "body": (
        "worker process 0 (pid 55) was lost in app.die [9]: killed, RSS last seen 7 bytes; "
        "found at the next start"
    ),
    "time_ns": (3 * S, 3 * S),
    "attributes": {
        "celery.worker.slot": "0",
        "process.pid": 55,
        "celery.worker.exit.reason": "killed",
        "celery.worker.exit.told_late": True,
        "celery.worker.process.rss": 7,
        "celery.worker.process.rss_peak": 8,
        "celery.task.name": "app.die",
        "celery.task.id": "9",
        "celery.task.age": 1.5,
        "celery.task.memory.rss.start": 6,
    },
    "span": (0, 0),
}


def pressure_event(doing: str, **attributes: Any) -> Plain:
    slot, pid, rss = (
        attributes[key]
        for key in ("celery.worker.slot", "process.pid", "celery.worker.process.rss")
    )
    return {
        "name": "celery.memory.pressure",
        "severity": ("WARN", 13),
        "body": (
            f"910 of 1,000 bytes of cgroup are used; worker process {slot} (pid {pid}, "
            f"RSS {rss:,} bytes) is {doing}"
        ),
        "time_ns": (4 * S, 4 * S),
        "attributes": {
            "celery.memory.limit.kind": "cgroup",
            "celery.memory.limit.size": 1_000,
            "celery.memory.limit.used": 910,
            **attributes,
        },
        "span": (0, 0),
    }


EXPECTED_PRESSURE = [
    pressure_event(
        "in app.die [4]",
        **{
            "celery.worker.slot": "1",
            "process.pid": 102,
            "celery.worker.process.rss": 60_000_000,
            "celery.worker.process.rss_peak": 5_000_001_000,
            "celery.task.name": "app.die",
            "celery.task.id": "4",
            "celery.task.age": 2.0,
            "celery.task.memory.rss.start": 60_000_000,
        },
    ),
    pressure_event(
        "with no task",
        **{
            "celery.worker.slot": "main",
            "process.pid": 100,
            "celery.worker.process.rss": 50_000_000,
            "celery.worker.process.rss_peak": 50_000_000,
        },
    ),
]


def site_event(rank: int, body: str, **attributes: Any) -> Plain:
    return {
        "name": "celery.memory.allocation_site",
        "severity": ("INFO", 9),
        "body": body,
        "time_ns": (6 * S, 6 * S),
        "attributes": {
            "celery.memory.site.rank": rank,
            "celery.task.name": "app.grow",
            "celery.memory.site.runs": 1,
            **attributes,
        },
        "span": (0, 0),
    }


EXPECTED_SITES = [
    site_event(
        1,
        "app/feeds.py:41 left 60,000 bytes in 3 blocks alive in each of 1 traced runs of app.grow",
        **{
            "celery.memory.site.name": "app/feeds.py:41",
            "code.file.path": "/srv/app/feeds.py",
            "code.line.number": 41,
            "code.function.name": "load",
            "celery.memory.site.size": 60_000,
            "celery.memory.site.blocks": 3,
            "celery.memory.site.size_change": 60_000,
            "celery.memory.site.rate": 240_000,
        },
    ),
    site_event(
        2,
        "app/lib.py:9 left 50 bytes in 1 blocks alive in each of 1 traced runs of app.grow",
        **{
            "celery.memory.site.name": "app/lib.py:9",
            "code.file.path": "/srv/app/lib.py",
            "code.line.number": 9,
            "code.stacktrace": "/srv/app/feeds.py:2\n/srv/app/lib.py:9",
            "celery.memory.site.size": 50,
            "celery.memory.site.blocks": 1,
            "celery.memory.site.size_change": 50,
            "celery.memory.site.rate": 200,
        },
    ),
]
