"""What comes of the history: every metric, written down by hand."""

from __future__ import annotations

from typing import Any

from otel_celery_memory.probes.procfs import ProcessReading
from tests.telemetry.history import SPAN_ID, TRACE
from tests.telemetry.payload import Plain, distribution, points

GROW = {"celery.task.name": "app.grow"}
SHRINK = {"celery.task.name": "app.shrink"}
UP, DOWN, WARM_UP = (
    {"celery.memory.direction": direction} for direction in ("grow", "shrink", "warm_up")
)
MAIN_SLOT, FIRST_SLOT, SECOND_SLOT = ({"celery.worker.slot": slot} for slot in ("main", "0", "1"))

FIRST_READING = ProcessReading(
    rss_bytes=11,
    virtual_bytes=12,
    swap_bytes=0,
    unique_bytes=14,
    proportional_bytes=15,
    open_files=16,
    open_files_limit=17,
    threads=18,
    unique_at_start_bytes=19,
    copied_bytes=20,
)
"""What the probe reads of the process in slot 0; the metrics of processes below are its numbers."""


def exemplar(value: int) -> dict[str, Any]:
    return {"exemplars": [(value, TRACE, SPAN_ID, {})]}


def histogram(*distributions: Plain, unit: str = "By") -> Plain:
    return {"unit": unit, "kind": "cumulative histogram", "points": list(distributions)}


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
        distribution(DOWN | SHRINK, [4_065_536], bounds=()),
        distribution(WARM_UP | GROW, [65_536], bounds=()),
    ),
    "celery.task.heap.retained": histogram(
        distribution(UP | GROW, [0, 0, 6_000], bounds=()),
        distribution(UP | SHRINK, [0, 0], bounds=()),
        distribution(DOWN | SHRINK, [4_500], bounds=()),
        distribution(WARM_UP | GROW, [40_000_000], bounds=()),
    ),
    "celery.task.heap.blocks.retained": histogram(
        distribution(UP | GROW, [0, 0, 60], bounds=()),
        distribution(UP | SHRINK, [0, 0, 7], bounds=()),
        distribution(DOWN | SHRINK, [12], bounds=()),
        unit="{block}",
    ),
    "celery.task.open_files.retained": histogram(
        distribution(UP | GROW, [2, 2, 2], bounds=()),
        distribution(DOWN | SHRINK, [1, 1, 1], bounds=()),
        unit="{file}",
    ),
    "celery.task.threads.retained": histogram(
        distribution(UP | GROW, [1, 1, 1], bounds=()), unit="{thread}"
    ),
    "celery.task.heap.garbage": histogram(distribution(UP | GROW, [300, 300, 300], bounds=())),
    "celery.task.memory.traced.delta": histogram(
        distribution(UP | GROW, [60_000], **exemplar(60_000))
    ),
    "celery.task.memory.traced.peak": histogram(distribution(GROW, [250_000], **exemplar(250_000))),
    "celery.task.memory.tree.peak": histogram(
        distribution(GROW, [90_000_000], **exemplar(90_000_000))
    ),
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
    "celery.worker.memory.copied": level("By", (FIRST_SLOT, 20)),
    "celery.worker.memory.descendants": level("By", (FIRST_SLOT, 1_234), (SECOND_SLOT, 0)),
    "celery.worker.memory.descendants.unique": level("By", (SECOND_SLOT, 0)),
    "celery.worker.memory.descendants.left": level("By", (GROW, 500), (SHRINK, 0)),
    "celery.worker.memory.proportional": level("By", (FIRST_SLOT, 15)),
    "celery.worker.open_files": level("{file}", (FIRST_SLOT, 16)),
    "celery.worker.open_files.limit": level("{file}", (FIRST_SLOT, 17)),
    "celery.worker.threads": level("{thread}", (FIRST_SLOT, 18)),
    "celery.worker.messages": level(
        "{message}",
        ({"celery.worker.message.state": "active"}, 2),
        ({"celery.worker.message.state": "reserved"}, 3),
        ({"celery.worker.message.state": "revoked"}, 5),
        ({"celery.worker.message.state": "scheduled"}, 4_000),
    ),
    "celery.worker.messages.size": level(
        "By",
        ({"celery.worker.message.state": "active"}, 200),
        ({"celery.worker.message.state": "scheduled"}, 400_000),
    ),
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
    "celery.worker.memory.limit.utilization": {
        "unit": "1",
        "kind": "gauge",
        "points": points(
            ({"celery.memory.limit.kind": "cgroup"}, 0.5),
            ({"celery.memory.limit.kind": "host"}, 0.25),
        ),
    },
    "celery.worker.memory.cgroup": level("By", ({}, 900)),
    "celery.worker.memory.cgroup.swap": level("By", ({}, 60)),
    "celery.worker.heap.blocks": level("{block}", (FIRST_SLOT, 1_234), (SECOND_SLOT, 4_321)),
    "celery.worker.heap.malloc.used": level("By", (FIRST_SLOT, 5_000)),
    "celery.worker.heap.malloc.free": level("By", (FIRST_SLOT, 600)),
    "cpython.gc.collections": counter(
        "{collection}",
        ({**FIRST_SLOT, "cpython.gc.generation": 0}, 40),
        ({**FIRST_SLOT, "cpython.gc.generation": 1}, 3),
        ({**FIRST_SLOT, "cpython.gc.generation": 2}, 1),
    ),
    "cpython.gc.collected_objects": counter(
        "{object}",
        ({**FIRST_SLOT, "cpython.gc.generation": 0}, 700),
        ({**FIRST_SLOT, "cpython.gc.generation": 1}, 60),
        ({**FIRST_SLOT, "cpython.gc.generation": 2}, 5),
    ),
    "cpython.gc.uncollectable_objects": counter(
        "{object}", ({**FIRST_SLOT, "cpython.gc.generation": 2}, 2)
    ),
    "celery.memory.frames.dropped": counter(
        "{frame}",
        ({"celery.memory.frame.kind": "damaged"}, 9),
        ({"celery.memory.frame.kind": "other"}, 8),
        ({"celery.memory.frame.kind": "task_end"}, 7),
    ),
    "celery.memory.reporter.restarts": counter("{restart}", ({}, 2)),
    "celery.memory.tracing.overhead": {
        "unit": "1",
        "kind": "gauge",
        "points": points(({}, 0.0075)),
    },
    "celery.memory.tracing.aborted": counter("{task}", ({}, 1)),
    "celery.memory.parts.switched_off": level(
        "{part}",
        ({"celery.memory.part": "_other"} | SECOND_SLOT, 1),
        ({"celery.memory.part": "limits", "celery.worker.slot": "reporter"}, 1),
        ({"celery.memory.part": "tracing"} | SECOND_SLOT, 1),
    ),
}


def gauge(unit: str, *values: tuple[Plain, int]) -> Plain:
    return {"unit": unit, "kind": "gauge", "points": points(*values)}


def of_site(line: str, window: str, task: Plain = GROW) -> Plain:
    return {**task, "celery.memory.site.name": f"app/{line}", "celery.memory.site.window": window}


EXPECTED_SITE_GAUGES = {
    "celery.memory.site.size": gauge(
        "By",
        (of_site("feeds.py:41", "complete"), 60_000),
        (of_site("feeds.py:43", "partial"), 7_000),
        (of_site("feeds.py:44", "process", {}), 9_000),
        (of_site("lib.py:9", "complete"), 50),
    ),
    "celery.memory.site.rate": gauge(
        "By/min",
        (of_site("feeds.py:41", "complete"), 240_000),
        (of_site("feeds.py:44", "process", {}), 18_000),
        (of_site("lib.py:9", "complete"), 200),
    ),
    "celery.memory.site.runs": gauge(
        "{run}",
        (of_site("feeds.py:41", "complete"), 1),
        (of_site("feeds.py:43", "partial"), 1),
        (of_site("feeds.py:44", "process", {}), 500),
        (of_site("lib.py:9", "complete"), 1),
    ),
}
"""After the sites of the history are ranked, over 30 seconds."""

EXPECTED_WITHOUT_PROCESSES = {
    "celery.memory.parts.switched_off": level(
        "{part}", ({"celery.memory.part": "limits", "celery.worker.slot": "reporter"}, 1)
    ),
}
"""What failed in a process goes with it; the reporter's own parts stay."""
