"""How a capture is introduced, to people and in JSON: whose it is, of what kind, when and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime, timezone

from otel_celery_memory.captures.model import KINDS, Capture, CapturedProcess
from otel_celery_memory.cli.text import WIDTH, count, printable, size

_INDENT = 15


def heading(capture: Capture, title: str) -> Iterator[str]:
    """Lines that say what a capture is."""
    worker = f" of {capture.worker}" if capture.worker else ""
    yield from _wrapped("", f"{title}{worker}: {capture.kind}, {KINDS[capture.kind]}")
    over = f", over {capture.duration_s:,.1f} s" if capture.duration_s else ""
    reason = f": {capture.reason}" if capture.reason else ""
    yield from _wrapped("taken", f"{_when(capture.taken_ns)}{over}{reason}")
    frames = "1 frame" if capture.frames == 1 else f"{capture.frames} frames"
    yield from _wrapped("tracing", f"{capture.tracing}, {frames}")
    if capture.processes:
        yield from _wrapped("processes", ", ".join(map(_process, capture.processes)))
    if capture.runs:
        runs = (f"{task} {count(number)}" for task, number in sorted(capture.runs.items()))
        yield from _wrapped("traced runs", ", ".join(runs))


def described(capture: Capture) -> dict[str, object]:
    """The same as JSON."""
    return {
        "kind": capture.kind,
        "worker": capture.worker,
        "reason": capture.reason,
        "taken_ns": capture.taken_ns,
        "duration_s": capture.duration_s,
        "frames": capture.frames,
        "tracing": capture.tracing,
        "processes": [vars(process) for process in capture.processes],
        "runs": dict(capture.runs),
        "other_bytes": capture.other_bytes,
        "other_blocks": capture.other_blocks,
    }


def _process(process: CapturedProcess) -> str:
    rss = "" if process.rss_bytes is None else f", {size(process.rss_bytes)}"
    return f"{process.slot} (pid {process.pid}{rss})"


def _when(taken_ns: int) -> str:
    return f"{datetime.fromtimestamp(taken_ns // 10**9, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _wrapped(name: str, text: str) -> Iterator[str]:
    first = f"  {name}".ljust(_INDENT) if name else ""
    yield from textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * _INDENT,
        break_on_hyphens=False,
    )
