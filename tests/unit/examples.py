"""One record of every kind, with values that tell the fields apart."""

from __future__ import annotations

from otel_celery_memory.records import (
    Goodbye,
    HeapSampled,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    Record,
    Site,
    SitesWindow,
    TaskFinished,
    TaskInFlight,
    TaskOverdue,
    TaskStarted,
    WorkerStopping,
)

SPAN = bytes(range(1, 26))

EXAMPLES: tuple[Record, ...] = (
    ProcessUp(11, 12, -1, 14),
    ProcessDown(21, 22, 3, 155, 25, -26, "max_tasks", "app.previous"),
    TaskStarted(31, 32, 33, 34, 0, "id-3", "app.task", "app.previous"),
    TaskFinished(41, 42, 43, -44, 45, 46, 47, 1, 0, SPAN, "id-4", "app.task", "SUCCESS"),
    SitesWindow(51, 52, 53, "app.task"),
    Site(61, 62, -63, 64, "app.task", "/srv/app/feeds.py", "/srv/a.py:1\n/srv/b.py:2"),
    HeapSampled(71, 72, 73, 74, 75),
    TaskOverdue(81, 82, "id-8", "app.task"),
    ProcessExited(91, 92, -9, 4, "terminated"),
    WorkerStopping(101, 102),
    Goodbye(111, 112),
    TaskInFlight(121, 122, "id-12", "app.task"),
)


def started(
    pid: int = 1,
    task_id: str = "a",
    task: str = "app.task",
    *,
    time_ns: int = 0,
    rss_bytes: int = 1_000,
    retained_bytes: int | None = None,
    nested: int = 0,
    previous_task: str = "",
) -> TaskStarted:
    """A task's start, of which most tests need two or three fields."""
    return TaskStarted(
        pid, time_ns, rss_bytes, retained_bytes, nested, task_id, task, previous_task
    )


def finished(
    pid: int = 1,
    task_id: str = "a",
    task: str = "app.task",
    *,
    time_ns: int = 0,
    start_bytes: int = 1_000,
    delta_bytes: int = 0,
    peak_bytes: int | None = None,
    traced_delta_bytes: int | None = None,
    traced_peak_bytes: int | None = None,
    exclusive: int = 1,
    nested: int = 0,
    span: bytes = bytes(25),
    state: str = "SUCCESS",
) -> TaskFinished:
    """A task's end, of which most tests need two or three fields."""
    return TaskFinished(
        pid,
        time_ns,
        start_bytes,
        delta_bytes,
        peak_bytes,
        traced_delta_bytes,
        traced_peak_bytes,
        exclusive,
        nested,
        span,
        task_id,
        task,
        state,
    )
