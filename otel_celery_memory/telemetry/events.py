"""The log events: allocation sites and lost processes, one sentence each for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry._logs import Logger, SeverityNumber
from opentelemetry.context import Context

from otel_celery_memory import conventions as c
from otel_celery_memory.records import WindowKind

_SEVERITY = {
    "INFO": SeverityNumber.INFO,
    "WARN": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
}


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
class LostProcess:
    """A process that ended otherwise than by shutdown or recycling, and what it was doing."""

    slot: str
    pid: int
    reason: str
    signal: int | None
    rss_bytes: int | None
    rss_peak_bytes: int | None
    task: str | None
    task_id: str | None
    task_age_s: float | None
    task_rss_start_bytes: int | None
    oom_kills: int | None


class Events:
    """Sends events on a logger."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def allocation_site(self, site: RankedSite, time_ns: int) -> None:
        """Tell one of the sites that grow fastest."""
        attributes: dict[str, str | int | None] = {
            c.SITE_RANK: site.rank,
            c.SITE_NAME: site.name,
            c.CODE_FILE: site.path,
            c.CODE_LINE: site.line,
            c.CODE_FUNCTION: site.function,
            c.CODE_STACKTRACE: site.stack or None,
            c.TASK_NAME: site.task or None,
            c.SITE_WINDOW: site.kind.name.lower(),
            c.SITE_SIZE: site.size_bytes,
            c.SITE_BLOCKS: site.blocks,
            c.SITE_SIZE_CHANGE: site.size_change_bytes,
            c.SITE_RUNS: site.runs,
            c.SITE_RATE: site.rate_bytes_per_minute,
        }
        size = f"{site.size_bytes:,} bytes in {site.blocks:,} blocks"
        body = {
            WindowKind.RUN: f"{site.name} left {size} alive in each of {site.runs} traced runs "
            f"of {site.task}",
            WindowKind.SLICE: f"{size} from {site.name} were alive when a slice of {site.task} "
            f"ended, on the mean of {site.runs}",
            WindowKind.PROCESS: f"{site.name} holds {size} more than when its processes were warm",
        }[site.kind]
        self._emit(c.ALLOCATION_SITE, attributes, body, time_ns)

    def process_lost(self, lost: LostProcess, time_ns: int) -> None:
        """Tell that a process is gone that should not be."""
        attributes: dict[str, str | int | float | None] = {
            c.SLOT: lost.slot,
            c.PROCESS_PID: lost.pid,
            c.EXIT_REASON: lost.reason,
            c.EXIT_SIGNAL: lost.signal,
            c.PROCESS_RSS: lost.rss_bytes,
            c.PROCESS_RSS_PEAK: lost.rss_peak_bytes,
            c.TASK_NAME: lost.task,
            c.TASK_ID: lost.task_id,
            c.TASK_AGE: lost.task_age_s,
            c.SPAN_RSS_START: lost.task_rss_start_bytes,
            c.CGROUP_OOM_KILLS: lost.oom_kills,
        }
        doing = "with no task" if lost.task is None else f"in {lost.task} [{lost.task_id}]"
        size = "" if lost.rss_bytes is None else f", RSS last seen {lost.rss_bytes:,} bytes"
        body = f"worker process {lost.slot} (pid {lost.pid}) was lost {doing}: {lost.reason}{size}"
        self._emit(c.PROCESS_LOST, attributes, body, time_ns)

    def _emit(
        self,
        event: c.Event,
        attributes: Mapping[str, str | int | float | None],
        body: str,
        time_ns: int,
    ) -> None:
        self._logger.emit(
            event_name=event.name,
            timestamp=time_ns,
            observed_timestamp=time_ns,
            severity_number=_SEVERITY[event.severity],
            severity_text=event.severity,
            body=body,
            attributes={key: value for key, value in attributes.items() if value is not None},
            context=Context(),
        )
