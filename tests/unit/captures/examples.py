"""Captures with a different value in each field."""

from __future__ import annotations

from dataclasses import replace

from otel_celery_memory.captures.model import (
    HEAP,
    RUNS,
    Capture,
    CapturedProcess,
    CapturedSite,
)

APP = "/srv/shop/app/feeds.py"
JSON = "/usr/lib/python3.11/json/encoder.py"
TAKEN_NS = 1_795_169_700_123_456_789
"""2026-11-20 10:15:00 UTC and a bit."""

LEAK = CapturedSite(
    task="feeds.refresh",
    path=APP,
    line=41,
    function="refresh",
    name="app/feeds.py:41",
    stack=(("/srv/shop/app/tasks.py", 7), (APP, 41), (JSON, 200)),
    size_bytes=10_485_760,
    blocks=20_480,
)
CACHE = CapturedSite(
    task="feeds.refresh",
    path=APP,
    line=50,
    function="refresh",
    name="app/feeds.py:50",
    stack=((APP, 50),),
    size_bytes=2_048,
    blocks=2,
)
FREED = CapturedSite(
    task="mail.send",
    path="/srv/shop/app/mail.py",
    line=9,
    function=None,
    name="app/mail.py:9",
    stack=(),
    size_bytes=-512,
    blocks=-1,
)
CAPTURE = Capture(
    kind=RUNS,
    worker="celery@web-1",
    reason="asked for by inspect",
    taken_ns=TAKEN_NS,
    duration_s=30.5,
    frames=3,
    tracing="budget",
    processes=(
        CapturedProcess("0", 311, 85_143_552),
        CapturedProcess("1", 312, None),
    ),
    runs={"feeds.refresh": 20, "mail.send": 4},
    sites=(LEAK, CACHE, FREED),
    other_bytes=300,
    other_blocks=3,
)
HEAP_BEFORE = replace(CAPTURE, kind=HEAP, runs={}, other_bytes=0, other_blocks=0)
HEAP_AFTER = replace(
    HEAP_BEFORE,
    taken_ns=TAKEN_NS + 60 * 10**9,
    sites=(replace(LEAK, size_bytes=LEAK.size_bytes + 1_024_000, blocks=21_480), CACHE),
)
