"""Snapshots that ``tracemalloc.Snapshot.dump`` wrote, as captures of the whole heap.

Such a file is a pickle: loading it runs whatever code it brings. Nothing in this package loads
one unless its caller says that the file is trusted.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

from otel_celery_memory.captures.errors import CaptureError
from otel_celery_memory.captures.model import HEAP, Capture, CapturedSite
from otel_celery_memory.captures.names import short_path

PICKLE_MAGIC = b"\x80"
"""How a pickle of protocol 2 and later begins; `dump` writes no other."""
REFUSAL = (
    "is no capture but a pickle, perhaps of tracemalloc.Snapshot.dump(): loading one runs code "
    "that the file brings; pass --trust-pickle if you know who wrote it"
)


def read_snapshot(path: Path, roots: Sequence[str] = (), *, trust: bool) -> Capture:
    """The capture that a snapshot amounts to; files are named relative to `roots`.

    Raises `CaptureError` where the file is not trusted or is no snapshot.
    """
    if not trust:
        raise CaptureError(REFUSAL)
    try:
        snapshot = tracemalloc.Snapshot.load(str(path))
        if not isinstance(snapshot, tracemalloc.Snapshot):
            raise TypeError("another object")
        return _whole_heap(snapshot, round(path.stat().st_mtime * 1e9), roots)
    # What a broken pickle raises is up to what is broken in it.
    except Exception as error:
        raise CaptureError(f"is no tracemalloc snapshot: {type(error).__name__}") from None


def _whole_heap(snapshot: tracemalloc.Snapshot, written_ns: int, roots: Sequence[str]) -> Capture:
    sites = []
    for found in snapshot.statistics("traceback"):
        stack = tuple((str(frame.filename), int(frame.lineno)) for frame in found.traceback)
        path, line = stack[-1]
        sites.append(
            CapturedSite(
                task="",
                path=path,
                line=line,
                function=None,
                name=f"{short_path(path, roots)}:{line}",
                stack=stack if len(stack) > 1 else (),
                size_bytes=int(found.size),
                blocks=int(found.count),
            )
        )
    return Capture(
        kind=HEAP,
        worker="",
        reason="a tracemalloc snapshot",
        taken_ns=written_ns,
        duration_s=0.0,
        frames=int(snapshot.traceback_limit),
        tracing="tracemalloc",
        processes=(),
        runs={},
        sites=tuple(sites),
        other_bytes=0,
        other_blocks=0,
    )
