"""The log events and their values: sites, verdicts, pressure, lost processes, captures.

The body of each event is for people: one sentence, of a verdict all that it says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry._logs import Logger, SeverityNumber
from opentelemetry.context import Context

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import NO_SPAN, WindowKind, printable, size_text
from otel_celery_memory.leaks import words
from otel_celery_memory.leaks.verdict import Interval, State, Verdict
from otel_celery_memory.telemetry.metrics import NO_CONTEXT, in_64_bits, span_context

Value = str | int | float | None
"""An attribute's value; attributes with ``None`` are left out."""
_SEVERITY = {
    "INFO": SeverityNumber.INFO,
    "WARN": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
}


@dataclass(frozen=True)
class RankedSite:
    """A line of code with the memory that was alive there, and its rank.

    ``via`` names the line of a library that it went through, ``where`` the kind of code.
    ``size_bytes`` and ``blocks`` are means of a traced run or part of one; for ``kind`` ``PROCESS``
    they are the growth of all processes since their baselines. ``runs`` is the number of runs or
    parts. ``rate_bytes_per_minute`` is estimated from all runs of the task, ``None`` for a part;
    ``size_change_bytes`` is the difference to the event before. ``of_library``: in its stacks is no
    line of the user's.
    """

    rank: int
    name: str
    path: str
    line: int
    function: str | None
    stack: str
    via: str
    where: str
    task: str
    kind: WindowKind
    size_bytes: int
    blocks: int
    size_change_bytes: int
    runs: int
    rate_bytes_per_minute: int | None
    of_library: bool = False


@dataclass(frozen=True)
class ProcessSnapshot:
    """A process, its last known size, and the task that it runs or ran."""

    slot: str
    pid: int
    rss_bytes: int | None
    rss_peak_bytes: int | None
    task: str | None
    task_id: str | None
    task_age_s: float | None
    task_rss_start_bytes: int | None

    def attributes(self) -> dict[str, Value]:
        """The attributes of an event."""
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
        """What it runs, in words."""
        return (
            "with no task" if self.task is None else printable(f"in {self.task} [{self.task_id}]")
        )


@dataclass(frozen=True)
class LostProcess:
    """A process that ended otherwise than by shutdown or recycling, and the task that it ran.

    ``recovered``: the whole worker was killed, and its next start emits the event. ``span`` is the
    task's own or that of its message's sender: trace id, span id and flags, as in records.
    ``exit_code`` is ``None`` after a signal. ``repeated`` is how many processes the task's message
    has cost this worker, with this one; ``None`` without a task. ``task_rss_peak_bytes`` is what
    was seen of the run, above its start.
    """

    process: ProcessSnapshot
    reason: str
    signal: int | None
    oom_kills: int | None
    recovered: bool = False
    span: bytes = NO_SPAN
    exit_code: int | None = None
    repeated: int | None = None
    redelivered: bool = False
    task_rss_peak_bytes: int | None = None

    @property
    def sentence(self) -> str:
        """What happened, in words: for the event, and for the worker's log."""
        process = self.process
        age = "" if process.task_age_s is None else f" after {process.task_age_s:.1f} s"
        how = [
            *([] if self.signal is None else [f"signal {self.signal}"]),
            *([] if self.exit_code is None else [f"exit code {self.exit_code}"]),
        ]
        parts = [self.reason + (f" ({', '.join(how)})" if how else "")]
        if process.rss_bytes is not None:
            parts.append(f"RSS last seen {size_text(process.rss_bytes)}")
        if self.task_rss_peak_bytes is not None:
            parts.append(f"its run was seen to take {size_text(self.task_rss_peak_bytes)}")
        if self.redelivered:
            parts.append("the broker had delivered its message before")
        if (self.repeated or 0) > 1:
            parts.append(f"this message has killed {self.repeated:,} processes")
        if self.recovered:
            parts.append("found at the next start")
        return (
            f"worker process {process.slot} (pid {process.pid}) was lost {process.doing}{age}: "
            + ", ".join(parts)
        )


@dataclass(frozen=True)
class Pressure:
    """A process of a worker that has used 90 % of a limit: the process's own or the worker's."""

    process: ProcessSnapshot
    kind: str
    used_bytes: int
    limit_bytes: int

    @property
    def sentence(self) -> str:
        """What is near its limit, in words: for the event, and for the worker's log."""
        process = self.process
        return (
            f"{size_text(self.used_bytes)} of {size_text(self.limit_bytes)} of {self.kind} are "
            f"used; worker process {process.slot} (pid {process.pid}, RSS "
            f"{size_text(process.rss_bytes)}) is {process.doing}"
        )


@dataclass(frozen=True)
class DescendantsLeft:
    """Processes that still run though the runs of the task that started them have ended.

    ``task_id``, ``pid``, ``name`` and ``age_s`` (since the end of its run) are of the largest;
    ``task_id`` is ``None`` where several runs may have started that.
    """

    slot: str
    task: str
    task_id: str | None
    pid: int
    name: str
    processes: int
    rss_bytes: int
    unique_bytes: int | None
    age_s: float


@dataclass(frozen=True)
class Snapshot:
    """A completed capture: what is in it, and its file or why it was not written."""

    kind: str
    reason: str
    sites: int
    runs: int
    size_bytes: int
    file: str | None
    error: str | None


@dataclass(frozen=True)
class CensusEvent:
    """What a census found of one type in one process or, if no type has grown, of them all.

    ``objects`` are there now, ``growth`` more than ``runs`` runs before. ``share`` of the new ones
    that were looked at are held by ``holder``. ``problem``: why there was no census.
    """

    slot: str
    pid: int
    task: str | None
    runs: int
    objects: int
    hold_s: float
    growth: int = 0
    type_name: str | None = None
    holder: str | None = None
    share: float | None = None
    problem: str | None = None


class Events:
    """Emits events on a logger."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def allocation_site(self, site: RankedSite, time_ns: int) -> None:
        """Emits one of the sites that grow fastest."""
        attributes: dict[str, Value] = {
            c.SITE_RANK: site.rank,
            c.SITE_NAME: site.name,
            c.CODE_FILE: site.path,
            c.CODE_LINE: site.line,
            c.CODE_FUNCTION: site.function,
            c.CODE_STACKTRACE: site.stack or None,
            c.TASK_NAME: site.task or None,
            c.SITE_WINDOW: site.kind.name.lower(),
            c.SITE_VIA: site.via or None,
            c.SITE_WHERE: site.where or None,
            c.SITE_SIZE: site.size_bytes,
            c.SITE_BLOCKS: site.blocks,
            c.SITE_SIZE_CHANGE: site.size_change_bytes,
            c.SITE_RUNS: site.runs,
            c.SITE_RATE: site.rate_bytes_per_minute,
        }
        size = f"{site.size_bytes:,} bytes in {site.blocks:,} blocks"
        of = site.task or {"receiver": "tasks, in a receiver", "idle": "tasks, between them"}.get(
            site.where, "tasks"
        )
        body = {
            WindowKind.COMPLETE: f"{site.name} left {size} behind in each of {site.runs} traced "
            f"runs of {of}",
            WindowKind.FIRST_RUN: f"{size} from {site.name} were alive after a single run of {of}, "
            f"on the mean of {site.runs}",
            WindowKind.PARTIAL: f"{size} from {site.name} were alive when a part of {site.task} "
            f"ended, on the mean of {site.runs}",
            WindowKind.PROCESS: f"{site.name} holds {size} more than when its processes were warm",
        }[site.kind]
        self._emit(c.ALLOCATION_SITE, attributes, body, time_ns)

    def leak(self, verdict: Verdict, time_ns: int) -> None:
        """Emits a verdict that begins, changes or ends; its times are seconds since the epoch."""
        place, holder, forecast = verdict.place, verdict.holder, verdict.forecast
        stands = verdict.state != State.ENDED
        attributes: dict[str, Value] = {
            c.LEAK_STATE: verdict.state.value,
            c.LEAK_KIND: verdict.kind.value,
            c.LEAK_WHERE: verdict.where.value,
            c.TASK_NAME: verdict.task or None,
            **_rate(verdict.rate),
            c.LEAK_RUNS: verdict.runs,
            c.LEAK_PROCESSES: verdict.processes,
            c.LEAK_EXPLAINED: _finite(verdict.explained),
            c.LEAK_CONDITION: verdict.condition or None,
            c.LEAK_REASON: "; ".join(verdict.reasons) or None,
            c.LEAK_HOLDER: (holder.chain or None) if holder else None,
            c.LEAK_TYPES: (words.types_text(holder) or None) if holder else None,
        }
        if stands:
            attributes |= {
                c.EXHAUSTION_TIME: _finite(forecast.seconds.middle) if forecast else None,
                c.MAX_TASKS_PER_CHILD: verdict.max_tasks_per_child,
                c.MAX_MEMORY_PER_CHILD: verdict.max_memory_per_child_bytes,
            }
        if place is not None:
            attributes |= {
                c.SITE_NAME: place.name,
                c.SITE_SHARE: _finite(place.share),
                c.SITE_VIA: place.via or None,
                c.CODE_FILE: place.path,
                c.CODE_LINE: place.line,
                c.CODE_FUNCTION: place.function,
            }
        body = printable(words.sentences(verdict))
        self._emit(c.LEAK, attributes, body, time_ns, calm=verdict.state != State.LEAKING)

    def process_lost(self, lost: LostProcess, time_ns: int) -> None:
        """Emits the loss of a process."""
        process = lost.process
        attributes: dict[str, Value] = {
            **process.attributes(),
            c.EXIT_REASON: lost.reason,
            c.EXIT_SIGNAL: lost.signal,
            c.EXIT_CODE: lost.exit_code,
            c.EXIT_REPEATED: lost.repeated,
            c.TASK_REDELIVERED: True if lost.redelivered else None,
            c.SPAN_RSS_PEAK: lost.task_rss_peak_bytes,
            c.CGROUP_OOM_KILLS: lost.oom_kills,
            c.EXIT_RECOVERED: True if lost.recovered else None,
        }
        self._emit(c.PROCESS_LOST, attributes, lost.sentence, time_ns, span_context(lost.span))

    def pressure(self, pressure: Pressure, time_ns: int) -> None:
        """Emits what a process runs while a limit is near."""
        process = pressure.process
        attributes: dict[str, Value] = {
            **process.attributes(),
            c.LIMIT_KIND: pressure.kind,
            c.LIMIT_SIZE: pressure.limit_bytes,
            c.LIMIT_USED: pressure.used_bytes,
        }
        self._emit(c.PRESSURE, attributes, pressure.sentence, time_ns)

    def descendants_left(self, left: DescendantsLeft, time_ns: int) -> None:
        """Emits that processes still run whose runs have ended."""
        attributes: dict[str, Value] = {
            c.SLOT: left.slot,
            c.TASK_NAME: left.task,
            c.TASK_ID: left.task_id,
            c.PROCESS_PID: left.pid,
            c.DESCENDANT_NAME: left.name,
            c.DESCENDANT_PROCESSES: left.processes,
            c.DESCENDANT_RSS: left.rss_bytes,
            c.DESCENDANT_UNIQUE: left.unique_bytes,
            c.DESCENDANT_AGE: left.age_s,
        }
        processes = "1 process" if left.processes == 1 else f"{left.processes:,} processes"
        body = (
            f"{processes} with RSS {left.rss_bytes:,} bytes, the largest {left.name} (pid "
            f"{left.pid}), started by {left.task} in worker process {left.slot}, still run after "
            "their runs ended"
        )
        self._emit(c.DESCENDANTS_LEFT, attributes, body, time_ns)

    def snapshot(self, taken: Snapshot, time_ns: int) -> None:
        """Emits that a capture is complete."""
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

    def census(self, found: CensusEvent, time_ns: int) -> None:
        """Emits what a census found of one type."""
        attributes: dict[str, Value] = {
            c.SLOT: found.slot,
            c.PROCESS_PID: found.pid,
            c.TASK_NAME: found.task,
            c.CENSUS_TYPE: found.type_name,
            c.CENSUS_OBJECTS: None if found.problem else found.objects,
            c.CENSUS_GROWTH: None if found.problem else found.growth,
            c.CENSUS_RUNS: found.runs,
            c.CENSUS_HOLDER: found.holder,
            c.CENSUS_SHARE: found.share,
            c.CENSUS_HOLD: found.hold_s,
            c.CENSUS_PROBLEM: found.problem,
        }
        runs = f"{found.runs:,} runs of {found.task}" if found.task else f"{found.runs:,} runs"
        where = f"worker process {found.slot} (pid {found.pid})"
        if found.problem:
            body = f"{where} took no census: {found.problem}"
        elif found.type_name is None:
            body = f"{where}: no type has more objects after {runs}"
        else:
            body = (
                f"{where} has {found.growth:,} more objects of {found.type_name} after {runs}, "
                f"held by {found.holder}"
            )
        self._emit(c.CENSUS, attributes, body, time_ns)

    def _emit(
        self,
        event: c.Event,
        attributes: Mapping[str, Value],
        body: str,
        time_ns: int,
        context: Context = NO_CONTEXT,
        *,
        calm: bool = False,
    ) -> None:
        severity = event.calm_severity if calm else event.severity
        self._logger.emit(
            event_name=event.name,
            timestamp=time_ns,
            observed_timestamp=time_ns,
            severity_number=_SEVERITY[severity],
            severity_text=severity,
            body=body,
            attributes={
                key: _clamped(value) for key, value in attributes.items() if value is not None
            },
            context=context,
        )


def _rate(rate: Interval | None) -> dict[str, Value]:
    if rate is None:
        return {}
    return {
        c.LEAK_RATE: _finite(rate.middle),
        c.LEAK_RATE_LOW: _finite(rate.low),
        c.LEAK_RATE_HIGH: _finite(rate.high),
    }


def _finite(value: float | None) -> float | None:
    """A number that stores of events take; ``None`` for what has no bound."""
    return float(value) if value is not None and math.isfinite(value) else None


def _clamped(value: Value) -> Value:
    return in_64_bits(value) if isinstance(value, int) else value
