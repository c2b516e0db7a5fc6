"""The log events: allocation sites, pressure, lost processes; one sentence each for people."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry._logs import Logger, SeverityNumber
from opentelemetry.context import Context

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import WindowKind
from otel_celery_memory.telemetry.event_values import (
    LostProcess,
    Pressure,
    RankedSite,
    Snapshot,
    Value,
)
from otel_celery_memory.telemetry.metrics import NO_CONTEXT, span_context

_SEVERITY = {
    "INFO": SeverityNumber.INFO,
    "WARN": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
}


class Events:
    """Sends events on a logger."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def allocation_site(self, site: RankedSite, time_ns: int) -> None:
        """Tell one of the sites that grow fastest."""
        attributes: dict[str, Value] = {
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
            WindowKind.FIRST: f"{site.name} left {size} alive in each of {site.runs} traced runs "
            f"of {site.task}, each the first in its process",
            WindowKind.SLICE: f"{size} from {site.name} were alive when a slice of {site.task} "
            f"ended, on the mean of {site.runs}",
            WindowKind.PROCESS: f"{site.name} holds {size} more than when its processes were warm",
        }[site.kind]
        self._emit(c.ALLOCATION_SITE, attributes, body, time_ns)

    def process_lost(self, lost: LostProcess, time_ns: int) -> None:
        """Tell that a process is gone that should not be."""
        process = lost.process
        attributes: dict[str, Value] = {
            **process.attributes(),
            c.EXIT_REASON: lost.reason,
            c.EXIT_SIGNAL: lost.signal,
            c.CGROUP_OOM_KILLS: lost.oom_kills,
            c.EXIT_TOLD_LATE: True if lost.told_late else None,
        }
        size = "" if process.rss_bytes is None else f", RSS last seen {process.rss_bytes:,} bytes"
        late = "; found at the next start" if lost.told_late else ""
        body = (
            f"worker process {process.slot} (pid {process.pid}) was lost {process.doing}: "
            f"{lost.reason}{size}{late}"
        )
        self._emit(c.PROCESS_LOST, attributes, body, time_ns, span_context(lost.span))

    def pressure(self, pressure: Pressure, time_ns: int) -> None:
        """Tell what a process is doing while a limit is near."""
        process = pressure.process
        attributes: dict[str, Value] = {
            **process.attributes(),
            c.LIMIT_KIND: pressure.kind,
            c.LIMIT_SIZE: pressure.limit_bytes,
            c.LIMIT_USED: pressure.used_bytes,
        }
        body = (
            f"{pressure.used_bytes:,} of {pressure.limit_bytes:,} bytes of {pressure.kind} are "
            f"used; worker process {process.slot} (pid {process.pid}, RSS "
            f"{process.rss_bytes or 0:,} bytes) is {process.doing}"
        )
        self._emit(c.PRESSURE, attributes, body, time_ns)

    def snapshot(self, taken: Snapshot, time_ns: int) -> None:
        """Tell that a capture is complete."""
        attributes: dict[str, str | int | None] = {
            c.SNAPSHOT_KIND: taken.kind,
            c.SNAPSHOT_REASON: taken.reason,
            c.SNAPSHOT_SITES: taken.sites,
            c.SNAPSHOT_RUNS: taken.runs,
            c.SNAPSHOT_SIZE: taken.size_bytes,
            c.SNAPSHOT_FILE: taken.file,
        }
        where = taken.file or (f"not written, {taken.error}" if taken.error else "kept in no file")
        body = f"a capture by {taken.reason} has {taken.sites:,} sites: {where}"
        self._emit(c.SNAPSHOT, attributes, body, time_ns)

    def _emit(
        self,
        event: c.Event,
        attributes: Mapping[str, Value],
        body: str,
        time_ns: int,
        context: Context = NO_CONTEXT,
    ) -> None:
        self._logger.emit(
            event_name=event.name,
            timestamp=time_ns,
            observed_timestamp=time_ns,
            severity_number=_SEVERITY[event.severity],
            severity_text=event.severity,
            body=body,
            attributes={
                key: _carried(value) for key, value in attributes.items() if value is not None
            },
            context=context,
        )


def _carried(value: Value) -> Value:
    """What OTLP can carry: an exporter leaves out the sums of forged records that are more."""
    return min(max(value, -(2**63)), 2**63 - 1) if isinstance(value, int) else value
