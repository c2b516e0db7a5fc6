"""A short history of one worker, as records: what the payload tests feed."""

from __future__ import annotations

from otel_celery_memory.ipc.records import (
    Goodbye,
    HeapSampled,
    MessagesHeld,
    PartFailed,
    ProcessDown,
    ProcessExited,
    ProcessUp,
    Record,
    WindowKind,
)
from tests.unit.examples import finished, left_behind, site, started, window

TRACE, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = bytes.fromhex(TRACE + SPAN_ID + "01")
UNSAMPLED = bytes.fromhex(TRACE + SPAN_ID + "00")
MAIN, FIRST, SECOND = 100, 101, 102
S = 1_000_000_000

SUCCESSORS = (ProcessUp(103, 7 * S, 0, 30_000_000), ProcessUp(104, 6 * S, 1, 40_000_000))
"""They come up when the first two children have ended."""

RECORDS: tuple[Record, ...] = (
    ProcessUp(MAIN, 0, -1, 50_000_000),
    ProcessUp(FIRST, 0, 0, 50_000_000),
    ProcessUp(SECOND, 0, 1, 50_000_000),
    started(FIRST, "1", "app.grow", rss_bytes=50_000_000),
    finished(
        FIRST,
        "1",
        "app.grow",
        start_bytes=50_000_000,
        delta_bytes=70_000,
        peak_bytes=300_000,
        traced_delta_bytes=60_000,
        traced_peak_bytes=250_000,
        span=SAMPLED,
    ),
    window(FIRST, "app.grow", sites=2),
    site(60_000, 41, pid=FIRST, task="app.grow", blocks=6),
    site(
        50,
        9,
        pid=FIRST,
        task="app.grow",
        path="/srv/app/lib.py",
        stack="/srv/app/feeds.py:2\n/srv/app/lib.py:9",
        via="lib.py:9",
        where="task",
        blocks=4,
    ),
    window(FIRST, "app.grow", kind=WindowKind.PARTIAL, aborted=1),
    site(7_000, 43, pid=FIRST, task="app.grow", kind=WindowKind.PARTIAL, blocks=2),
    window(FIRST, "", kind=WindowKind.PROCESS, runs=500),
    site(9_000, 44, pid=FIRST, task="", kind=WindowKind.PROCESS, blocks=90),
    HeapSampled(FIRST, 0, 1_234, 5_000, 600, 40, 3, 1, 700, 60, 5, 0, 0, 2),
    started(
        FIRST,
        "2",
        "app.shrink",
        rss_bytes=50_065_536,
        retained_bytes=65_536,
        previous_task="app.grow",
    ),
    finished(
        FIRST,
        "2",
        "app.shrink",
        start_bytes=50_065_536,
        delta_bytes=-4_000_000,
        peak_bytes=0,
        span=UNSAMPLED,
        state="FAILURE",
    ),
    ProcessDown(FIRST, 3 * S, 0, 155, 46_000_000, -4_065_536, "max_tasks", "app.shrink"),
    left_behind(40_000_000, 5, pid=FIRST, task="app.grow", warm_up=1),
    *[
        left_behind(
            2_000, 20, pid=FIRST, task="app.grow", open_files=2, threads=1, garbage_bytes=300
        ),
        left_behind(-1_500, -4, pid=FIRST, task="app.shrink", open_files=-1, threads=None),
    ]
    * 3,
    left_behind(None, 7, pid=FIRST, task="app.shrink", open_files=None, garbage_bytes=None),
    started(SECOND, "3", "app.shared"),
    finished(SECOND, "3", "app.shared", delta_bytes=999, exclusive=0),
    finished(SECOND, "5", "app.grow", delta_bytes=0, peak_bytes=5_000_000_000),
    HeapSampled(SECOND, 0, 4_321, None, None),
    started(SECOND, "4", "app.die", time_ns=2 * S, rss_bytes=60_000_000),
    PartFailed(SECOND, 2 * S, 1, "tracing"),
    PartFailed(SECOND, 2 * S, 1, "tracing"),
    PartFailed(SECOND, 2 * S, 1, "something foreign"),
    MessagesHeld(MAIN, 2 * S, 2, 3, 4_000, 5, 200, None, 400_000),
    ProcessExited(SECOND, 0, -9, 1, 0, 0, SAMPLED, "", "4"),
    Goodbye(MAIN, 0),
)
