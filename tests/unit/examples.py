"""One record of every kind, with values that tell the fields apart."""

from __future__ import annotations

from otel_celery_memory.ipc.records import (
    FloorMeasured,
    Goodbye,
    HeapSampled,
    MessagesHeld,
    ObjectsCounted,
    PartFailed,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    Record,
    RunRetained,
    Site,
    SitesWindow,
    TaskFinished,
    TaskInFlight,
    TaskInFlightAtExit,
    TaskNotTraced,
    TaskOverdue,
    TaskStarted,
    TypeGrown,
    WindowKind,
    WorkerStopping,
)

SPAN = bytes(range(1, 26))

EXAMPLES: tuple[Record, ...] = (
    ProcessUp(11, 12, -1, 14),
    ProcessDown(21, 22, 3, 155, 25, -26, "max_tasks", "app.previous"),
    TaskStarted(31, 32, 33, 34, 0, "id-3", "app.task", "app.previous"),
    TaskFinished(
        41,
        42,
        43,
        44,
        -45,
        46,
        47,
        48,
        49,
        1,
        0,
        SPAN,
        "id-4",
        "app.task",
        "SUCCESS",
        "app.previous",
    ),
    SitesWindow(51, 52, 3, 54, 0, 56, 57, -58, -59, "app.task"),
    Site(61, 1, 63, 64, -65, 66, 1, "app.task", "/srv/app/feeds.py", "/srv/a.py:1\n/srv/b.py:2"),
    HeapSampled(71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84),
    TaskOverdue(81, 82, "id-8", "app.task"),
    ProcessExited(91, 92, -9, 4, 1, 1, SPAN, "terminated", "id-9"),
    WorkerStopping(101, 102),
    Goodbye(111, 112),
    TaskInFlight(121, 122, "id-12", "app.task"),
    TaskInFlightAtExit(131, 132, 133, -134, 0, "id-13", "app.task", "app.previous"),
    PartFailed(141, 142, 3, "heap"),
    RunRetained(151, 152, 0, 1, -154, 155, 156, -157, 158, 159, "app.task"),
    FloorMeasured(161, 162, 163, 164, 165, 166, 167, 168, 169, 170, 171),
    TaskNotTraced(181, 182, "app.task", "slow"),
    MessagesHeld(191, 192, 2, 3, 4_000, 5, 196, 197, None),
    TypeGrown(191, 192, 193, 194, 195, 8, 7, "app.Order", "app.SEEN → list[…]"),
    ObjectsCounted(201, 202, 203, 204, 205, -206, 1, 208, "a limit of memory is near"),
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
    started_ns: int = 0,
    retained_bytes: int | None = None,
    previous_task: str = "",
) -> TaskFinished:
    """A task's end, of which most tests need two or three fields."""
    return TaskFinished(
        pid,
        time_ns,
        started_ns,
        start_bytes,
        delta_bytes,
        peak_bytes,
        traced_delta_bytes,
        traced_peak_bytes,
        retained_bytes,
        exclusive,
        nested,
        span,
        task_id,
        task,
        state,
        previous_task,
    )


def left_behind(
    heap_bytes: int | None = 0,
    blocks: int = 0,
    *,
    pid: int = 1,
    task: str = "app.task",
    time_ns: int = 0,
    warm_up: int = 0,
    alike: int = 1,
    open_files: int | None = 0,
    threads: int | None = 0,
    garbage_bytes: int | None = 0,
    level_bytes: int | None = None,
) -> RunRetained:
    """What a sampled run left behind, of which most tests need one number."""
    return RunRetained(
        *(pid, time_ns, warm_up, alike, heap_bytes, blocks),
        *(open_files, threads, garbage_bytes, level_bytes, task),
    )


def window(
    pid: int = 1,
    task: str = "app.task",
    *,
    kind: WindowKind = WindowKind.COMPLETE,
    runs: int = 1,
    aborted: int = 0,
    capture: int = 0,
    sites: int = 1,
    other_bytes: int = 0,
    other_blocks: int = 0,
) -> SitesWindow:
    """A window of tracing, of which most tests need two or three fields."""
    return SitesWindow(pid, 0, kind, runs, aborted, capture, sites, other_bytes, other_blocks, task)


def site(
    size_bytes: int,
    line: int = 1,
    *,
    pid: int = 1,
    task: str = "app.task",
    kind: WindowKind = WindowKind.COMPLETE,
    capture: int = 0,
    blocks: int = 1,
    path: str = "/srv/app/feeds.py",
    stack: str = "",
    via: str = "",
    where: str = "",
    of_library: int = 0,
) -> Site:
    """What a window found at one place."""
    numbers = (pid, kind, capture, size_bytes, blocks, line, of_library)
    return Site(*numbers, task, path, stack, via, where)
