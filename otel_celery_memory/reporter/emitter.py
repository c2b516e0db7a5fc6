"""Turns records into metrics and events, in the reporter and in process alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from opentelemetry._logs import Logger
from opentelemetry.metrics import Histogram, Meter

from otel_celery_memory import conventions as c
from otel_celery_memory.captures.model import CapturedProcess
from otel_celery_memory.ipc.records import (
    ObjectsCounted,
    ProcessDown,
    ProcessUp,
    Record,
    RunRetained,
    Site,
    SitesWindow,
    TaskFinished,
    TaskInFlightAtExit,
    TaskNotTraced,
    TaskStarted,
    TypeGrown,
    slot_name,
)
from otel_celery_memory.leaks.verdict import Verdict
from otel_celery_memory.reporter.capture_assembly import CaptureAssembly, TakenCapture
from otel_celery_memory.reporter.census import Censuses, ProcessCensus
from otel_celery_memory.reporter.gauges import Counts, ReporterContext, levels_of, parts_off
from otel_celery_memory.reporter.leak_log import LeakLog
from otel_celery_memory.reporter.limits import Usage, log_of_limit
from otel_celery_memory.reporter.losses import Losses
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.state.exits import ProcessEnd, Recycling, Replacement
from otel_celery_memory.reporter.state.processes import ProcessState
from otel_celery_memory.reporter.state.totals import TaskTotals
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.telemetry.events import (
    CensusEvent,
    DescendantsLeft,
    Events,
    LostProcess,
    Pressure,
)
from otel_celery_memory.telemetry.leak_gauges import LeakGauges
from otel_celery_memory.telemetry.metrics import (
    BoundedNames,
    RecyclingMetrics,
    TaskMetrics,
    observe_levels,
)
from otel_celery_memory.telemetry.site_gauges import SiteGauges

PRESSURE_EVENTS_MAX = 100
"""Most events of one episode of pressure: for the largest processes."""


class Emitter:
    """Emits metrics and events from the records of one worker; called by one thread at a time."""

    def __init__(
        self,
        meter: Meter,
        logger: Logger,
        histogram: Callable[..., Histogram],
        site_gauges: SiteGauges,
        leak_gauges: LeakGauges,
        state: WorkerState,
        tasks: TaskTotals,
        sites: SiteTotals,
        captures: CaptureAssembly,
        context: ReporterContext,
        exit_counted: Callable[[int], None] = lambda pid: None,
        losses: Losses | None = None,
    ) -> None:
        """``exit_counted`` gets the pid of each process whose end is counted without an event."""
        self.state = state
        self.losses = losses or Losses()
        self._exit_counted = exit_counted
        self.sites = sites
        self.captures = captures
        self.censuses = Censuses()
        self.census_taken: Callable[[ProcessCensus], object] = lambda found: None
        """Called with what a process has found."""
        self.context = context
        self.tasks = tasks
        self._names = BoundedNames(c.TASK_NAMES_MAX)
        self._states = BoundedNames(c.TASK_STATES_MAX)
        self._tasks = TaskMetrics(histogram)
        self._site_gauges = site_gauges
        self._leak_gauges = leak_gauges
        self._leaks: tuple[Verdict, ...] | None = None
        self._leak_log = LeakLog()
        self._events = Events(logger)
        self._recycling = Recycling()
        self._recycled = RecyclingMetrics(histogram)
        self._counts = Counts()
        self.tree_peaks: dict[str, int] = {}
        """The highest peak of a run together with the processes that it started, by task."""
        self._in_flight: dict[int, TaskStarted] = {}
        observe_levels(meter, {**self._counts.levels(), **levels_of(context, state)})

    def apply(self, record: Record) -> None:
        """Applies one record to the state and emits what follows from it."""
        self.state.apply(record)
        if isinstance(record, TaskFinished):
            self._finished(record)
        elif isinstance(record, (TaskStarted, ProcessDown)):
            if record.retained_bytes is not None:
                self._retained(record.pid, record.previous_task, record.retained_bytes)
            if self._in_flight.get(record.pid) == record:
                del self._in_flight[record.pid]  # its record was sent when a nested task began
        elif isinstance(record, TaskInFlightAtExit):
            self.task_in_flight(TaskStarted(*record))
        elif isinstance(record, ProcessUp):
            self._replaced(self._recycling.up(record))
            self.context.process_started(record)
        elif isinstance(record, RunRetained):
            task = self._names.bounded(record.task)
            told = self.tasks.left_behind(task, record)
            if told is not None:
                self._tasks.left_behind(told, task)
        elif isinstance(record, TaskNotTraced):
            self.tasks.not_traced(self._names.bounded(record.task), record.reason)
        else:
            self._found(record)

    def _found(self, record: Record) -> None:
        """Applies what a process has found in its memory."""
        if isinstance(record, SitesWindow):
            self._counts.aborted += bool(record.aborted)
            self.sites.window(record)
            self.captures.window(record, self._sender(record.pid))
        elif isinstance(record, Site):
            self.sites.site(record)
            self.captures.site(record)
        elif isinstance(record, TypeGrown):
            self.censuses.grown(record)
        elif isinstance(record, ObjectsCounted):
            found = self.censuses.counted(record, self._sender(record.pid))
            if found is not None:
                self.census_taken(found)
                self._emit_census(found)

    def bounded_task(self, task: str) -> str:
        """The name that a task has in metrics: its own, or that of all others."""
        return self._names.bounded(task)

    def task_in_flight(self, record: TaskStarted) -> None:
        """The start of a task was found in a process's in-flight slot."""
        if self.state.apply_in_flight(record):
            self._in_flight[record.pid] = record

    def ended(self, end: ProcessEnd) -> None:
        """Counts how a process ended; emits an event if it was lost."""
        process = end.process
        self._count_in_flight(process)
        self.sites.process_gone(process.pid)
        life, replacement = self._recycling.ended(end)
        if life is not None:
            self._recycled.lived(life.reason, life.tasks, life.lifetime_s)
        self._replaced(replacement)
        if not end.lost:
            self._counts.exits[slot_name(process.slot), end.reason.value] += 1
            self._exit_counted(process.pid)
            return
        task = end.task
        lost = LostProcess(
            process.snapshot(task, end.time_ns),
            end.reason.value,
            end.signal,
            self.state.oom.since_start,
            span=process.span_of(task),
            exit_code=end.exit_code,
            redelivered=task is not None and task.task_id == process.redelivered_id,
            task_rss_peak_bytes=process.run_peak_of(task),
        )
        self.emit_lost(lost, end.time_ns)

    def exit_acknowledged(self, pid: int) -> None:
        """An earlier reporter exported this process's end: it is not emitted again."""
        process = self.state.discard(pid)
        if process is not None:
            self._count_in_flight(process)

    def emit_lost(self, lost: LostProcess, time_ns: int) -> None:
        """Counts a lost process, logs it and emits its event."""
        self._counts.exits[lost.process.slot, lost.reason] += 1
        lost = self.losses.record(lost, time_ns)
        if lost.process.task is not None and (lost.repeated or 0) > 1:
            self._counts.repeated[self._names.bounded(lost.process.task)] += 1
        self._events.process_lost(lost, time_ns)

    def _replaced(self, replacement: Replacement | None) -> None:
        if replacement is not None:
            self._recycled.replaced(replacement.reason, replacement.gap_s, replacement.freed_bytes)

    def emit_pressure(self, usage: Usage, now_ns: int) -> None:
        """Emits that a limit is near: for each process, or for the one that has the limit.

        The worker's log has a line, with the largest of them.
        """
        running = [process for process in self.state.processes.values() if process.gone_ns is None]
        running.sort(key=lambda process: -(process.rss_bytes or 0))
        pressed = [
            Pressure(
                process.snapshot(process.running, now_ns),
                usage.kind,
                usage.used_bytes,
                usage.limit_bytes,
            )
            for process in running[:PRESSURE_EVENTS_MAX]
            if usage.pid in (None, process.pid)
        ]
        if pressed:
            log_of_limit(usage.kind).warning("otel_celery_memory: %s", pressed[0].sentence)
        for each in pressed:
            self._events.pressure(each, now_ns)

    def emit_tree_peak(self, record: TaskFinished, peak_bytes: int) -> None:
        """Emits the peak of a run with the processes that it started."""
        task = self._names.bounded(record.task)
        self._tasks.tree_peak(record, task, peak_bytes)
        self.tree_peaks[task] = max(self.tree_peaks.get(task, 0), peak_bytes)

    def emit_descendants_left(self, left: DescendantsLeft, now_ns: int) -> None:
        """Emits that processes still run whose runs have ended."""
        self._events.descendants_left(left, now_ns)

    def emit_sites(self, interval_s: float, now_ns: int) -> None:
        """Emits the sites that grew fastest in the ``interval_s`` since the last call.

        Events are by stack; the gauges add up all stacks of a line.
        """
        for site in self.sites.rank(interval_s):
            self._events.allocation_site(site, now_ns)
        self._site_gauges.update(self.sites.places, self._names.bounded)

    @property
    def leaks(self) -> tuple[Verdict, ...]:
        """The verdicts as they are now; times are seconds since the epoch.

        Setting them changes the metrics and the view; `emit_leak` emits what has changed.
        """
        return self._leaks or ()

    @leaks.setter
    def leaks(self, verdicts: tuple[Verdict, ...]) -> None:
        self._leaks = verdicts
        self._leak_gauges.update(verdicts, self._names.bounded)

    @property
    def leaks_decided(self) -> bool:
        """Whether anybody decides what leaks; no verdict means nothing without."""
        return self._leaks is not None

    def emit_leak(self, verdict: Verdict, now_ns: int) -> None:
        """Emits a verdict that begins, changes or ends.

        The worker's log has a line when it says that something leaks, and when that ends.
        """
        self._leak_log.record(verdict)
        self._events.leak(verdict, now_ns)

    def emit_capture(self, taken: TakenCapture) -> None:
        """Emits that a capture is complete."""
        self._events.snapshot(taken.snapshot(), taken.capture.taken_ns)

    def _emit_census(self, found: ProcessCensus) -> None:
        counted = found.counted
        time_ns = max(counted.time_ns, 0)  # a damaged record may have any
        about = CensusEvent(
            slot=found.process.slot,
            pid=counted.pid,
            task=found.task or None,
            runs=counted.runs,
            objects=counted.objects,
            hold_s=counted.hold_ns / 1e9,
        )
        for row in found.grown:
            self._events.census(
                replace(
                    about,
                    type_name=row.type,
                    runs=row.runs,
                    objects=row.objects,
                    growth=row.growth,
                    holder=row.holder,
                    share=round(row.alike / row.sampled, 2) if row.sampled else None,
                ),
                time_ns,
            )
        if not found.grown:
            about = replace(about, growth=counted.growth, problem=counted.problem or None)
            self._events.census(about, time_ns)

    def runs_measured(self) -> int:
        """How many runs have been measured, whether others ran beside them or not."""
        return sum(self._counts.measured.values())

    def runs_aborted(self) -> int:
        """Runs whose tracing was stopped before their end."""
        return self._counts.aborted

    def switched_off(self) -> list[tuple[str, str]]:
        """Slot and part of each part of the instrumentation that is switched off."""
        return sorted(parts_off(self.context, self.state))

    def reset(self) -> None:
        """Starts again at zero, after a fork: the parent exports what it counted."""
        self._counts.clear()
        self.losses.clear()
        self.tasks.clear()
        self.sites.reset()
        self._site_gauges.clear()
        self._leak_gauges.clear()
        self._leak_log.clear()
        self._leaks = None
        self.state.processes.clear()
        self.state.collector.clear()

    def _sender(self, pid: int) -> CapturedProcess:
        process = self.state.processes.get(pid)
        return ProcessState(pid, None).captured() if process is None else process.captured()

    def _count_in_flight(self, process: ProcessState) -> None:
        start = self._in_flight.pop(process.pid, None)
        if start is not None and start.retained_bytes is not None and start in process.in_flight:
            # Its dropped end would have carried this.
            self._retained(process.pid, start.previous_task, start.retained_bytes)

    def _retained(self, pid: int, previous_task: str, retained_bytes: int) -> None:
        """``previous_task`` ran in the process, and its RSS changed until the next run."""
        task = self._names.bounded(previous_task)
        warm_up = self.state.is_first_run(pid, task)
        self._tasks.retained(task, retained_bytes, warm_up=warm_up)

    def _finished(self, record: TaskFinished) -> None:
        if record.retained_bytes is not None:
            self._retained(record.pid, record.previous_task, record.retained_bytes)
        task = self._names.bounded(record.task)
        self.sites.finished(record)
        exclusive = bool(record.exclusive)
        self._counts.measured[task, self._states.bounded(record.state), exclusive] += 1
        if exclusive:
            self._tasks.finished(record, task)
            self.tasks.finished(task, record)
