"""What comes of the history: every event, written down by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from otel_celery_memory.ipc.records import size_text
from otel_celery_memory.telemetry.events import DescendantsLeft, LostProcess, ProcessSnapshot
from tests.telemetry.history import SPAN_ID, TRACE, S
from tests.telemetry.payload import Plain

EXPECTED_LOSS = {
    "name": "celery.worker.process_lost",
    "severity": ("ERROR", 17),
    "body": (
        "worker process 1 (pid 102) was lost in app.die [4] after 3.0 s: oom_kill (signal 9), "
        "RSS last seen 57.2 MiB"
    ),
    "time_ns": (5 * S, 5 * S),
    "attributes": {
        "celery.worker.slot": "1",
        "process.pid": 102,
        "celery.worker.exit.reason": "oom_kill",
        "celery.worker.exit.signal": 9,
        "celery.worker.exit.repeated": 1,
        "celery.worker.process.rss": 60_000_000,
        "celery.worker.process.rss_peak": 5_000_001_000,
        "celery.task.name": "app.die",
        "celery.task.id": "4",
        "celery.task.age": 3.0,
        "celery.task.memory.rss.start": 60_000_000,
        "celery.worker.cgroup.oom_kills": 3,
    },
    "span": (int(TRACE, 16), int(SPAN_ID, 16)),
}


LATE = LostProcess(
    ProcessSnapshot("0", 55, 7, 8, "app.die", "9", 1.5, 6), "killed", None, None, recovered=True
)
EXPECTED_LATE_LOSS = {
    "name": "celery.worker.process_lost",
    "severity": ("ERROR", 17),
    "body": (
        "worker process 0 (pid 55) was lost in app.die [9] after 1.5 s: killed, "
        "RSS last seen 7 B, found at the next start"
    ),
    "time_ns": (3 * S, 3 * S),
    "attributes": {
        "celery.worker.slot": "0",
        "process.pid": 55,
        "celery.worker.exit.reason": "killed",
        "celery.worker.exit.recovered": True,
        "celery.worker.exit.repeated": 1,
        "celery.worker.process.rss": 7,
        "celery.worker.process.rss_peak": 8,
        "celery.task.name": "app.die",
        "celery.task.id": "9",
        "celery.task.age": 1.5,
        "celery.task.memory.rss.start": 6,
    },
    "span": (0, 0),
}

AGAIN = replace(
    LATE, reason="exited", recovered=False, exit_code=3, redelivered=True, task_rss_peak_bytes=2_048
)
EXPECTED_REPEATED_LOSS = {
    "name": "celery.worker.process_lost",
    "severity": ("ERROR", 17),
    "body": (
        "worker process 0 (pid 55) was lost in app.die [9] after 1.5 s: exited (exit code 3), "
        "RSS last seen 7 B, its run was seen to take 2.0 KiB, the broker had delivered its message "
        "before, this message has killed 2 processes"
    ),
    "time_ns": (4 * S, 4 * S),
    "attributes": {
        "celery.worker.slot": "0",
        "process.pid": 55,
        "celery.worker.exit.reason": "exited",
        "celery.worker.exit.code": 3,
        "celery.worker.exit.repeated": 2,
        "celery.worker.process.rss": 7,
        "celery.worker.process.rss_peak": 8,
        "celery.task.name": "app.die",
        "celery.task.id": "9",
        "celery.task.age": 1.5,
        "celery.task.redelivered": True,
        "celery.task.memory.rss.start": 6,
        "celery.task.memory.rss.peak": 2_048,
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
            f"910 B of 1000 B of cgroup are used; worker process {slot} (pid {pid}, "
            f"RSS {size_text(rss)}) is {doing}"
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


LEFT = DescendantsLeft("0", "app.render", "7", 201, "chrome", 3, 90_000_000, 70_000_000, 5.5)


def left_event(processes: str, **attributes: Any) -> Plain:
    return {
        "name": "celery.worker.descendants_left",
        "severity": ("WARN", 13),
        "body": (
            f"{processes} with RSS 90,000,000 bytes, the largest chrome (pid 201), started by "
            "app.render in worker process 0, still run after their runs ended"
        ),
        "time_ns": (4 * S, 4 * S),
        "attributes": {
            "celery.worker.slot": "0",
            "celery.task.name": "app.render",
            "process.pid": 201,
            "celery.worker.descendant.name": "chrome",
            "celery.worker.descendant.rss": 90_000_000,
            "celery.worker.descendant.age": 5.5,
            **attributes,
        },
        "span": (0, 0),
    }


EXPECTED_LEFT = [
    left_event(
        "3 processes",
        **{
            "celery.task.id": "7",
            "celery.worker.descendant.processes": 3,
            "celery.worker.descendant.unique": 70_000_000,
        },
    ),
    left_event("1 process", **{"celery.worker.descendant.processes": 1}),
]


def site_event(rank: int, body: str, **attributes: Any) -> Plain:
    return {
        "name": "celery.memory.allocation_site",
        "severity": ("INFO", 9),
        "body": body,
        "time_ns": (6 * S, 6 * S),
        "attributes": {
            "celery.memory.site.rank": rank,
            **attributes,
        },
        "span": (0, 0),
    }


OF_ONE_RUN = {
    "celery.task.name": "app.grow",
    "celery.memory.site.window": "complete",
    "celery.memory.site.runs": 1,
}

EXPECTED_SITES = [
    site_event(
        1,
        "app/feeds.py:41 left 60,000 bytes in 6 blocks behind in each of 1 traced runs of app.grow",
        **{
            **OF_ONE_RUN,
            "celery.memory.site.name": "app/feeds.py:41",
            "code.file.path": "/srv/app/feeds.py",
            "code.line.number": 41,
            "code.function.name": "load",
            "celery.memory.site.size": 60_000,
            "celery.memory.site.blocks": 6,
            "celery.memory.site.size_change": 60_000,
            "celery.memory.site.rate": 240_000,
        },
    ),
    site_event(
        2,
        "app/lib.py:9 left 50 bytes in 4 blocks behind in each of 1 traced runs of app.grow",
        **{
            **OF_ONE_RUN,
            "celery.memory.site.name": "app/lib.py:9",
            "code.file.path": "/srv/app/lib.py",
            "code.line.number": 9,
            "code.stacktrace": "/srv/app/feeds.py:2\n/srv/app/lib.py:9",
            "celery.memory.site.via": "lib.py:9",
            "celery.memory.site.where": "task",
            "celery.memory.site.size": 50,
            "celery.memory.site.blocks": 4,
            "celery.memory.site.size_change": 50,
            "celery.memory.site.rate": 200,
        },
    ),
    site_event(
        3,
        "app/feeds.py:44 holds 9,000 bytes in 90 blocks more than when its processes were warm",
        **{
            "celery.memory.site.window": "process",
            "celery.memory.site.runs": 500,
            "celery.memory.site.name": "app/feeds.py:44",
            "code.file.path": "/srv/app/feeds.py",
            "code.line.number": 44,
            "celery.memory.site.size": 9_000,
            "celery.memory.site.blocks": 90,
            "celery.memory.site.size_change": 9_000,
            "celery.memory.site.rate": 18_000,
        },
    ),
    site_event(
        4,
        "7,000 bytes in 2 blocks from app/feeds.py:43 were alive when a part of app.grow ended, "
        "on the mean of 1",
        **{
            "celery.task.name": "app.grow",
            "celery.memory.site.window": "partial",
            "celery.memory.site.runs": 1,
            "celery.memory.site.name": "app/feeds.py:43",
            "code.file.path": "/srv/app/feeds.py",
            "code.line.number": 43,
            "celery.memory.site.size": 7_000,
            "celery.memory.site.blocks": 2,
            "celery.memory.site.size_change": 7_000,
        },
    ),
]


def snapshot_event(where: str, **attributes: Any) -> Plain:
    return {
        "name": "celery.memory.snapshot",
        "severity": ("INFO", 9),
        "body": f"a capture by remote control has 3 sites: {where}",
        "time_ns": (8 * S, 8 * S),
        "attributes": {
            "celery.memory.snapshot.kind": "runs",
            "celery.memory.snapshot.reason": "remote control",
            "celery.memory.snapshot.sites": 3,
            "celery.memory.snapshot.runs": 24,
            "celery.memory.snapshot.size": 10_487_596,
            **attributes,
        },
        "span": (0, 0),
    }


def census_event(body: str, **attributes: Any) -> Plain:
    return {
        "name": "celery.memory.census",
        "severity": ("INFO", 9),
        "body": body,
        "time_ns": (8 * S, 8 * S),
        "attributes": {"celery.worker.slot": "0", "process.pid": 101, **attributes},
        "span": (0, 0),
    }


EXPECTED_CENSUSES = [
    census_event(
        "worker process 0 (pid 101) has 10,000 more objects of app.Order after 10 runs of app.sell"
        ", held by app.SEEN → list[…]",
        **{
            "celery.task.name": "app.sell",
            "celery.memory.census.type": "app.Order",
            "celery.memory.census.objects": 10_001,
            "celery.memory.census.growth": 10_000,
            "celery.memory.census.runs": 10,
            "celery.memory.census.holder": "app.SEEN → list[…]",
            "celery.memory.census.share": 0.75,
            "celery.memory.census.hold": 0.125,
        },
    ),
    census_event(
        "worker process 0 (pid 101): no type has more objects after 10 runs",
        **{
            "celery.memory.census.objects": 1_000_000,
            "celery.memory.census.growth": -7,
            "celery.memory.census.runs": 10,
            "celery.memory.census.hold": 0.125,
        },
    ),
    census_event(
        "worker process 0 (pid 101) took no census: a limit of memory is near",
        **{
            "celery.memory.census.runs": 0,
            "celery.memory.census.hold": 0.0,
            "celery.memory.census.problem": "a limit of memory is near",
        },
    ),
]
WRITTEN = "/var/captures/20261120T101500Z-0123456789abcdef.capture.json.gz"
EXPECTED_SNAPSHOTS = [
    snapshot_event(WRITTEN, **{"celery.memory.snapshot.file": WRITTEN}),
    snapshot_event("not written, the disk is full"),
    snapshot_event("kept in no file"),
]
