"""What the log events tell of, as values: sites, processes and what became of them, captures."""

from __future__ import annotations

from dataclasses import dataclass

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import NO_SPAN, WindowKind

Value = str | int | float | None
"""Of an attribute; ``None`` is left out."""


@dataclass(frozen=True)
class RankedSite:
    """A place in the code, with what was found alive there.

    Of ``kind`` ``RUN`` and ``SLICE`` ``size_bytes`` and ``blocks`` are means of a traced run or
    slice, of ``PROCESS`` what has grown in all processes since their baselines. ``runs`` is how
    many that covers. ``rate_bytes_per_minute`` is an estimate from all runs of the task, ``None``
    for a slice; ``size_change_bytes`` is against the event before.
    """

    rank: int
    name: str
    path: str
    line: int
    function: str | None
    stack: str
    task: str
    kind: WindowKind
    size_bytes: int
    blocks: int
    size_change_bytes: int
    runs: int
    rate_bytes_per_minute: int | None


@dataclass(frozen=True)
class ProcessSnapshot:
    """A process, its last seen size, and the task that it is or was running."""

    slot: str
    pid: int
    rss_bytes: int | None
    rss_peak_bytes: int | None
    task: str | None
    task_id: str | None
    task_age_s: float | None
    task_rss_start_bytes: int | None

    def attributes(self) -> dict[str, Value]:
        """As attributes of an event."""
        return {
            c.SLOT: self.slot,
            c.PROCESS_PID: self.pid,
            c.PROCESS_RSS: self.rss_bytes,
            c.PROCESS_RSS_PEAK: self.rss_peak_bytes,
            c.TASK_NAME: self.task,
            c.TASK_ID: self.task_id,
            c.TASK_AGE: self.task_age_s,
            c.SPAN_RSS_START: self.task_rss_start_bytes,
        }

    @property
    def doing(self) -> str:
        """For people."""
        return "with no task" if self.task is None else f"in {self.task} [{self.task_id}]"


@dataclass(frozen=True)
class LostProcess:
    """A process that ended otherwise than by shutdown or recycling, and what it was doing.

    ``told_late``: nobody was left to tell it, and the next start of the worker does. ``span`` is
    the task's, or that which its message came from: trace id, span id and flags, as in records.
    """

    process: ProcessSnapshot
    reason: str
    signal: int | None
    oom_kills: int | None
    told_late: bool = False
    span: bytes = NO_SPAN


@dataclass(frozen=True)
class Pressure:
    """A process of a worker that has used 90 % of a limit, its own or the whole worker's."""

    process: ProcessSnapshot
    kind: str
    used_bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class Snapshot:
    """A capture that was asked for: what it holds, where it was written or why it was not."""

    kind: str
    reason: str
    sites: int
    runs: int
    size_bytes: int
    file: str | None
    error: str | None
