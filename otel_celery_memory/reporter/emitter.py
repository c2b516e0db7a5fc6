"""The one emitter: records in, metrics and events out, in the reporter and in process alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from opentelemetry._logs import Logger
from opentelemetry.metrics import Histogram, Meter

from otel_celery_memory import conventions as c
from otel_celery_memory.probes.limits import Limits
from otel_celery_memory.probes.proc import ProcessReading
from otel_celery_memory.records import (
    ProcessDown,
    Record,
    Site,
    SitesWindow,
    TaskFinished,
    TaskStarted,
    slot_name,
)
from otel_celery_memory.reporter.endings import ProcessEnd
from otel_celery_memory.reporter.sites import SiteTotals
from otel_celery_memory.reporter.state import WorkerState
from otel_celery_memory.telemetry.events import Events, LostProcess
from otel_celery_memory.telemetry.metrics import (
    BoundedNames,
    Level,
    TaskMetrics,
    observe_levels,
)


@dataclass(frozen=True)
class Surroundings:
    """What the emitter asks of the world outside of the records, each when metrics are read."""

    processes: Callable[[], Mapping[str, ProcessReading]]
    limits: Callable[[], Limits]
    max_memory_per_child_bytes: int | None
    frames_dropped: Callable[[], int]
    reporter_restarts: int


class Emitter:
    """Feeds metrics and events from the records of one worker; called by one thread at a time."""

    def __init__(
        self,
        meter: Meter,
        logger: Logger,
        histogram: Callable[..., Histogram],
        state: WorkerState,
        sites: SiteTotals,
        surroundings: Surroundings,
    ) -> None:
        self.state = state
        self._sites = sites
        self._surroundings = surroundings
        self._names = BoundedNames(c.TASK_NAMES_MAX)
        self._states = BoundedNames(c.TASK_STATES_MAX)
        self._tasks = TaskMetrics(histogram)
        self._events = Events(logger)
        # Written by one thread, copied by the SDK's export thread: list() of a dictionary's
        # items is one step to other threads.
        self._measured: Counter[tuple[str, str, bool]] = Counter()
        self._exits: Counter[tuple[str, str]] = Counter()
        observe_levels(meter, self._levels())

    def apply(self, record: Record) -> None:
        """Take in one record."""
        self.state.apply(record)
        if isinstance(record, TaskFinished):
            self._finished(record)
        elif isinstance(record, (TaskStarted, ProcessDown)):
            if record.retained_bytes is not None:
                self._tasks.retained(
                    self._names.bounded(record.previous_task), record.retained_bytes
                )
        elif isinstance(record, SitesWindow):
            self._sites.window(record)
        elif isinstance(record, Site):
            self._sites.site(record)

    def ended(self, end: ProcessEnd) -> None:
        """Count how a process ended; tell it where it was lost."""
        process = end.process
        slot = slot_name(process.slot)
        self._exits[slot, end.reason.value] += 1
        if not end.lost:
            return
        task = end.task
        self._events.process_lost(
            LostProcess(
                slot=slot,
                pid=process.pid,
                reason=end.reason.value,
                signal=end.signal,
                rss_bytes=process.rss_bytes,
                rss_peak_bytes=process.rss_peak_bytes,
                task=task.task if task else None,
                task_id=task.task_id if task else None,
                task_age_s=round((end.time_ns - task.time_ns) / 1e9, 3) if task else None,
                task_rss_start_bytes=task.rss_bytes if task else None,
                oom_kills=self.state.oom.since_start,
            ),
            end.time_ns,
        )

    def emit_sites(self, interval_s: float, now_ns: int) -> None:
        """Send the events of the sites that grew fastest since this was last called."""
        for site in self._sites.rank(interval_s):
            self._events.allocation_site(site, now_ns)

    def forget(self) -> None:
        """Begin anew: after a fork, what the parent counted is the parent's to tell."""
        self._measured.clear()
        self._exits.clear()
        self._sites.forget()
        self.state.processes.clear()

    def _finished(self, record: TaskFinished) -> None:
        task = self._names.bounded(record.task)
        self._sites.finished(record)
        exclusive = bool(record.exclusive)
        self._measured[task, self._states.bounded(record.state), exclusive] += 1
        if exclusive:
            self._tasks.finished(record, task)

    def _levels(self) -> dict[c.Metric, Callable[[], Iterable[Level]]]:
        surroundings = self._surroundings

        def of_processes(attribute: str) -> Callable[[], list[Level]]:
            return lambda: [
                (value, {c.SLOT: slot})
                for slot, reading in surroundings.processes().items()
                if (value := getattr(reading, attribute)) is not None
            ]

        return {
            c.MEASURED: self._measured_levels,
            c.MEMORY: of_processes("rss_bytes"),
            c.MEMORY_UNIQUE: of_processes("unique_bytes"),
            c.MEMORY_PROPORTIONAL: of_processes("proportional_bytes"),
            c.MEMORY_SWAP: of_processes("swap_bytes"),
            c.MEMORY_VIRTUAL: of_processes("virtual_bytes"),
            c.OPEN_FILES: of_processes("open_files"),
            c.OPEN_FILES_LIMIT: of_processes("open_files_limit"),
            c.MEMORY_LIMIT: self._limit_levels,
            c.MEMORY_CGROUP: self._cgroup_levels,
            c.HEAP_BLOCKS: lambda: self._heap_levels("blocks"),
            c.MALLOC_USED: lambda: self._heap_levels("malloc_used_bytes"),
            c.MALLOC_FREE: lambda: self._heap_levels("malloc_free_bytes"),
            c.PROCESS_EXITS: self._exit_levels,
            c.FRAMES_DROPPED: lambda: [(surroundings.frames_dropped(), {})],
            c.REPORTER_RESTARTS: lambda: [(surroundings.reporter_restarts, {})],
        }

    def _measured_levels(self) -> list[Level]:
        counts = list(self._measured.items())
        return [
            (count, {c.TASK_NAME: task, c.TASK_STATE: state, c.EXCLUSIVE: exclusive})
            for (task, state, exclusive), count in counts
        ]

    def _exit_levels(self) -> list[Level]:
        counts = list(self._exits.items())
        return [(count, {c.SLOT: slot, c.EXIT_REASON: why}) for (slot, why), count in counts]

    def _heap_levels(self, attribute: str) -> list[Level]:
        samples = [
            (process.slot, process.heap)
            for process in list(self.state.processes.values())
            if process.heap is not None and process.gone_ns is None and process.slot is not None
        ]
        return [
            (value, {c.SLOT: slot_name(slot)})
            for slot, heap in samples
            if (value := getattr(heap, attribute)) is not None
        ]

    def _limit_levels(self) -> list[Level]:
        limits = self._surroundings.limits()
        kinds = {
            "cgroup": limits.cgroup_bytes,
            "rlimit_as": limits.rlimit_as_bytes,
            "max_memory_per_child": self._surroundings.max_memory_per_child_bytes,
            "host": limits.host_bytes,
        }
        return [(value, {c.LIMIT_KIND: kind}) for kind, value in kinds.items() if value is not None]

    def _cgroup_levels(self) -> list[Level]:
        used = self._surroundings.limits().cgroup_used_bytes
        return [] if used is None else [(used, {})]
