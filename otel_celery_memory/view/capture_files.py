"""Capture files that workers wrote on this machine, as JSON for the page: one, or two compared.

A sender of telemetry could name any file. So only files are read that have the name of a capture,
are of a modest size, and are captures in each of their values. What is wrong with one is said as
``error``, in one line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from otel_celery_memory.captures.comparison import LINE, caveats, compare, grouped, total
from otel_celery_memory.captures.directory import CAPTURE_SUFFIX
from otel_celery_memory.captures.format import load_capture, read_bytes
from otel_celery_memory.captures.model import ADDED_UP, KINDS, Capture, CaptureError
from otel_celery_memory.view.flame_graph import flame_graph
from otel_celery_memory.view.otlp import TEXT_MAX

Plain = dict[str, Any]

FILE_BYTES_MAX = 4 << 20
"""Of a compressed file: unpacked it takes many times as much for a moment."""
PLACES_SHOWN = 25
SAVED_MAX = 5
"""Newest captures of a worker that a saved page has, each compared with each."""


def key_of(file: str) -> str:
    """What a page calls a file, so that it can ask for none that it was not told of."""
    return hashlib.sha256(file.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def shown(file: str) -> Plain:
    """A capture's places, and its flame graph where it has stacks."""
    try:
        return _as_json(_read(file))
    except CaptureError as error:
        return {"error": str(error)}


def compared(before: str, after: str) -> Plain:
    """What changed between two captures, by line, the largest change first."""
    try:
        return _comparison(_read(before), _read(after))
    except CaptureError as error:  # of a file, or of two kinds
        return {"error": str(error)}


def with_captures(snapshot: Plain) -> Plain:
    """A snapshot for a saved page, with the contents of its captures. Waits for the disk."""
    captured: Plain = {}
    changes: Plain = {}
    for worker in snapshot["workers"]:
        files = [row["file"] for row in worker["captures"] if row["key"]]
        more_captured, more_changes = _all_of(files[:SAVED_MAX])
        captured |= more_captured
        changes |= more_changes
    return {**snapshot, "captured": captured, "compared": changes}


def _all_of(files: Sequence[str]) -> tuple[Plain, Plain]:
    """Captures by their keys, and each pair compared, by ``before/after``; newest first."""
    captures: Plain = {}
    comparisons: Plain = {}
    read: list[tuple[str, Capture]] = []
    for file in files:
        key = key_of(file)
        try:
            capture = _read(file)
        except CaptureError as error:
            captures[key] = {"error": str(error)}
            continue
        captures[key] = _as_json(capture)
        read.append((key, capture))
    for (newer, after), (older, before) in combinations(read, 2):
        comparisons[f"{older}/{newer}"] = _difference(before, after)
    return captures, comparisons


def _read(file: str) -> Capture:
    path = Path(file)
    if not path.is_absolute() or not path.name.endswith(CAPTURE_SUFFIX):
        raise CaptureError("has not the name of a capture")
    try:
        size_bytes = path.stat().st_size
    except (OSError, ValueError):
        raise CaptureError("cannot be read on this machine") from None
    if size_bytes > FILE_BYTES_MAX:
        raise CaptureError("is too large for the page: use otel-celery-memory show")
    return load_capture(read_bytes(path))


def _as_json(capture: Capture) -> Plain:
    groups = grouped(capture, LINE)
    size_bytes, blocks = total(groups)
    return {
        "words": KINDS[capture.kind],
        "reason": _text(capture.reason),
        "taken": capture.taken_ns / 1e9,
        "duration": capture.duration_s,
        "frames": capture.frames,
        "runs": sum(capture.runs.values()) if capture.kind in ADDED_UP else None,
        "size": size_bytes,
        "blocks": blocks,
        "other": capture.other_bytes,
        "places": len(groups),
        "top": [
            {
                "task": _text(group.task),
                "place": _text(group.place),
                "size": group.size_bytes,
                "blocks": group.blocks,
                "a_run": group.run_bytes,
            }
            for group in groups[:PLACES_SHOWN]
        ],
        "by_task": any(site.task for site in capture.sites),
        "flame": [
            {
                "name": _text(box.name),
                "depth": box.depth,
                "start": box.start_bytes,
                "size": box.size_bytes,
                "blocks": box.blocks,
            }
            for box in flame_graph(capture)
        ],
    }


def _difference(before: Capture, after: Capture) -> Plain:
    try:
        return _comparison(before, after)
    except CaptureError as error:
        return {"error": str(error)}


def _comparison(before: Capture, after: Capture) -> Plain:
    changes = [change for change in compare(before, after, LINE) if change.weight]
    by_run = after.kind in ADDED_UP
    return {
        "notes": [_text(note) for note in caveats(before, after)],
        "by_run": by_run,
        "places": len(changes),
        # A sum of means over several tasks has no meaning.
        "size": None if by_run else sum(change.size_bytes for change in changes),
        "top": [
            {
                "task": _text(change.after.task),
                "place": _text(change.place),
                "change": change.run_bytes if by_run else change.size_bytes,
                "blocks": None if by_run else change.blocks,
                "before": change.before.run_bytes if by_run else change.before.size_bytes,
                "after": change.after.run_bytes if by_run else change.after.size_bytes,
            }
            for change in changes[:PLACES_SHOWN]
        ],
    }


def _text(text: str) -> str:
    """A text of a file, as long as any that the page shows, and one that UTF-8 can carry."""
    return text[:TEXT_MAX].encode("utf-8", "replace").decode()
