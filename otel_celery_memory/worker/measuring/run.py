"""A task between its start and its end: what was measured at its start, and its peaks so far."""

from __future__ import annotations


class Run:
    """A task between its start and its end."""

    __slots__ = (
        "epoch",
        "has_peak",
        "nested",
        "peak_bytes",
        "rss_bytes",
        "session",
        "shared",
        "started_ns",
        "task",
        "task_id",
        "traced_bytes",
        "traced_peak_bytes",
    )

    def __init__(self, task_id: str, task: str, nested: bool, started_ns: int) -> None:
        self.task_id = task_id
        self.task = task
        self.nested = nested
        self.started_ns = started_ns
        self.rss_bytes = 0
        self.peak_bytes = 0
        self.has_peak = False
        self.session = 0
        self.traced_bytes = 0
        self.traced_peak_bytes = 0
        self.shared = False
        self.epoch = 0
