"""A task that leaks on a line known to the tests, and captures of what it left alive."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

from otel_celery_memory.captures.model import HEAP, Capture, CapturedSite, short_path
from otel_celery_memory.probes.sites import live_sites

ROOT = f"{Path(__file__).parents[3]}/"
RUN_BYTES = 1_000
_seen: list[bytes] = []


def refresh() -> None:
    """Keeps a thousand bytes a run."""
    _seen.append(bytes(RUN_BYTES - b"".__sizeof__()))


LINE = refresh.__code__.co_firstlineno + 2
NAME = f"tests/unit/cli/leak.py:{LINE}"


def around(runs: int) -> tuple[Capture, Capture]:
    """Captures of this process's heap before and after runs of the task."""
    tracemalloc.start(2)
    try:
        refresh()
        before = live_heap()
        for _ in range(runs):
            refresh()
        return before, live_heap()
    finally:
        tracemalloc.stop()
        _seen.clear()


def live_heap() -> Capture:
    """What is traced and alive."""
    sites = [
        CapturedSite(
            task="",
            path=frames[0][0],
            line=frames[0][1],
            function=None,
            name=f"{short_path(frames[0][0], (ROOT,))}:{frames[0][1]}",
            stack=frames[::-1],
            size_bytes=size_bytes,
            blocks=blocks,
        )
        for frames, (size_bytes, blocks) in live_sites().items()
    ]
    return Capture(HEAP, "", "a test", time.time_ns(), 0.0, 2, "always", (), {}, tuple(sites), 0, 0)
