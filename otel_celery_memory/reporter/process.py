"""One process of a worker as its reporter knows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_celery_memory.records import HeapSampled, ProcessDown, TaskStarted

JUDGE_AFTER_NS = 1_000_000_000
"""How long all sides have to speak of a process that is gone."""
GIVE_UP_AFTER_NS = 6_000_000_000
"""How long to wait for the main process, which reaps a child when it gets to it."""


@dataclass
class ProcessState:
    """One process of the worker."""

    pid: int
    slot: int | None
    """``None`` until it is told: the first record that was read may be of a task."""
    rss_bytes: int | None = None
    rss_peak_bytes: int | None = None
    up_ns: int | None = None
    """When it was ready; ``None`` where nobody who is left has heard that."""
    tasks: int = 0
    """Tasks that it ran to their end, but for those nested in others."""
    in_flight: list[TaskStarted] = field(default_factory=list)
    last: TaskStarted | None = None
    last_finished: str = ""
    """The id of the task that ended last."""
    heap: HeapSampled | None = None
    down: ProcessDown | None = None
    terminated: bool = False
    """Whether its last task did not end by itself."""
    exit_code: int | None = None
    wanted: str = ""
    """Why the main process ended it by a signal, as `ProcessExited` tells."""
    gone_ns: int | None = None
    finished_ns: int = 0
    """When the run began whose end was told last."""

    def saw_rss(self, rss_bytes: int) -> None:
        """Note a value of RSS, from a record or from outside."""
        self.rss_bytes = rss_bytes
        self.rss_peak_bytes = max(self.rss_peak_bytes or 0, rss_bytes)

    @property
    def judge_after_ns(self) -> int:
        """How long after it was gone its end is judged."""
        # A goodbye after a signal does not say whose it was: the main process knows.
        by_itself = self.down is not None and self.down.exit_code >= 0
        told = by_itself or self.exit_code is not None
        return JUDGE_AFTER_NS if told else GIVE_UP_AFTER_NS
