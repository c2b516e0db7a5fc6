"""Metrics that are read when they are collected: sizes, limits and counts at that moment.

`Counts` has what has happened since the reporter started, `TracingShare` what part of the tasks'
CPU time allocation tracing and samples of the counters took in the last ten minutes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.control_page import DropCounts
from otel_celery_memory.ipc.records import ProcessUp, slot_name
from otel_celery_memory.probes.limits import Limits
from otel_celery_memory.probes.procfs import ProcessReading
from otel_celery_memory.reporter.descendants import DescendantsSize
from otel_celery_memory.reporter.limits import Usage
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.telemetry.metrics import Level, in_64_bits


@dataclass(frozen=True)
class ReporterContext:
    """What the emitter reads beside records; the callables run when metrics are collected."""

    processes: Callable[[], Mapping[str, ProcessReading]]
    limits: Callable[[], Limits]
    limits_used: Callable[[], Sequence[Usage]]
    """How much of each limit is used, as the pressure events report it."""
    max_memory_per_child_bytes: int | None
    frames_dropped: Callable[[], DropCounts]
    reporter_restarts: int
    tracing_share: Callable[[], float | None]
    switched_off: Callable[[], Iterable[str]] = tuple
    """Parts of the reporter that are switched off."""
    descendants: Callable[[], Sequence[DescendantsSize]] = tuple
    """The processes that tasks started, as of the last look."""
    descendants_left: Callable[[], Mapping[str, int]] = dict
    """Bytes of those that still run though the runs of their task have ended, by task."""
    process_started: Callable[[ProcessUp], None] = lambda record: None
    """Called when a process is up."""


Levels = dict[c.Metric, Callable[[], Iterable[Level]]]


def levels_of(context: ReporterContext, state: WorkerState) -> Levels:
    """The callbacks of the metrics that are read from the context and the state."""

    def of_processes(attribute: str) -> Callable[[], list[Level]]:
        return lambda: [
            (value, {c.SLOT: slot})
            for slot, reading in context.processes().items()
            if (value := getattr(reading, attribute)) is not None
        ]

    def of_cgroup(attribute: str) -> Callable[[], list[Level]]:
        def read() -> list[Level]:
            value = getattr(context.limits(), attribute)
            return [] if value is None else [(value, {})]

        return read

    def of_heaps(attribute: str) -> Callable[[], list[Level]]:
        return lambda: _heap_levels(state, attribute)

    def tracing_share() -> list[Level]:
        share = context.tracing_share()
        return [] if share is None else [(share, {})]

    return {
        c.TRACING_OVERHEAD: tracing_share,
        c.MEMORY: of_processes("rss_bytes"),
        c.MEMORY_UNIQUE: of_processes("unique_bytes"),
        c.MEMORY_COPIED: of_processes("copied_bytes"),
        c.DESCENDANTS: lambda: _descendant_levels(context.descendants(), "rss_bytes"),
        c.DESCENDANTS_UNIQUE: lambda: _descendant_levels(context.descendants(), "unique_bytes"),
        c.DESCENDANTS_LEFT_SIZE: lambda: [
            (size_bytes, {c.TASK_NAME: task})
            for task, size_bytes in context.descendants_left().items()
        ],
        c.MEMORY_PROPORTIONAL: of_processes("proportional_bytes"),
        c.MEMORY_SWAP: of_processes("swap_bytes"),
        c.MEMORY_VIRTUAL: of_processes("virtual_bytes"),
        c.OPEN_FILES: of_processes("open_files"),
        c.OPEN_FILES_LIMIT: of_processes("open_files_limit"),
        c.THREADS: of_processes("threads"),
        c.MEMORY_LIMIT: lambda: _limit_levels(context),
        c.LIMIT_UTILIZATION: lambda: _utilization_levels(context.limits_used()),
        c.MEMORY_CGROUP: of_cgroup("cgroup_used_bytes"),
        c.MEMORY_CGROUP_SWAP: of_cgroup("cgroup_swap_used_bytes"),
        c.MESSAGES: lambda: _message_levels(state, ""),
        c.MESSAGES_SIZE: lambda: _message_levels(state, "_bytes"),
        c.HEAP_BLOCKS: of_heaps("blocks"),
        c.MALLOC_USED: of_heaps("malloc_used_bytes"),
        c.MALLOC_FREE: of_heaps("malloc_free_bytes"),
        c.GC_COLLECTIONS: lambda: _collector_levels(state, 0),
        c.GC_COLLECTED: lambda: _collector_levels(state, 1),
        c.GC_UNCOLLECTABLE: lambda: [each for each in _collector_levels(state, 2) if each[0]],
        c.FRAMES_DROPPED: lambda: _dropped_levels(context.frames_dropped()),
        c.REPORTER_RESTARTS: lambda: [(context.reporter_restarts, {})],
        c.PARTS_SWITCHED_OFF: lambda: [
            (count, {c.SLOT: slot, c.PART: part})
            for (slot, part), count in parts_off(context, state).items()
        ],
    }


def parts_off(context: ReporterContext, state: WorkerState) -> Counter[tuple[str, str]]:
    """How many parts are switched off, by slot and part, in the running processes."""
    return Counter(
        [
            (slot_name(process.slot), part)
            for process in list(state.processes.values())
            if process.gone_ns is None
            for part in sorted(process.switched_off)
        ]
        + [("reporter", part) for part in context.switched_off()]
    )


def _dropped_levels(dropped: DropCounts) -> list[Level]:
    kinds = {
        c.FRAME_TASK_END: dropped.task_ends,
        c.FRAME_OTHER: dropped.others,
        c.FRAME_DAMAGED: dropped.damaged,
    }
    # Zeros too: Prometheus sees no increase in a counter that begins at one.
    return [(count, {c.FRAME_KIND: kind}) for kind, count in kinds.items()]


def _heap_levels(state: WorkerState, attribute: str) -> list[Level]:
    samples = [
        (process.slot, process.heap)
        for process in list(state.processes.values())
        if process.heap is not None and process.gone_ns is None and process.slot is not None
    ]
    return [
        (value, {c.SLOT: slot_name(slot)})
        for slot, heap in samples
        if (value := getattr(heap, attribute)) is not None
    ]


def _collector_levels(state: WorkerState, which: int) -> list[Level]:
    """The numbers of each slot and generation: collections, collected or uncollectable objects."""
    first = which * c.GC_GENERATIONS
    return [
        (numbers[first + generation], {c.SLOT: slot_name(slot), c.GC_GENERATION: generation})
        for slot, numbers in list(state.collector.items())
        for generation in range(c.GC_GENERATIONS)
    ]


def _descendant_levels(sizes: Sequence[DescendantsSize], attribute: str) -> list[Level]:
    """The sum of each slot; none where a part of it is not known."""
    of_slots: dict[str, list[int | None]] = {}
    for size in sizes:
        of_slots.setdefault(size.slot, []).append(getattr(size, attribute))
    return [
        (sum(value or 0 for value in values), {c.SLOT: slot})
        for slot, values in of_slots.items()
        if None not in values
    ]


def _message_levels(state: WorkerState, ending: str) -> list[Level]:
    held = state.messages
    main_runs = held is not None and held.pid in state.processes
    return [
        (in_64_bits(value), {c.MESSAGE_STATE: name})
        for name in c.MESSAGE_STATES
        if main_runs and (value := getattr(held, name + ending, None)) is not None
    ]


def _limit_levels(context: ReporterContext) -> list[Level]:
    limits = context.limits()
    kinds = {
        c.LIMIT_CGROUP: limits.cgroup_bytes,
        c.LIMIT_CGROUP_HIGH: limits.cgroup_high_bytes,
        c.LIMIT_CGROUP_SWAP: limits.cgroup_swap_bytes,
        c.LIMIT_AS: limits.rlimit_as_bytes,
        c.LIMIT_DATA: limits.rlimit_data_bytes,
        c.LIMIT_MAX_MEMORY: context.max_memory_per_child_bytes,
        c.LIMIT_HOST: limits.host_bytes,
    }
    return [(value, {c.LIMIT_KIND: kind}) for kind, value in kinds.items() if value is not None]


def _utilization_levels(usages: Sequence[Usage]) -> list[Level]:
    """The fullest of nested cgroups, and of the processes that have a limit each."""
    fullest: dict[str, float] = {}
    for usage in usages:
        fullest[usage.kind] = max(usage.share, fullest.get(usage.kind, 0.0))
    return [(share, {c.LIMIT_KIND: kind}) for kind, share in fullest.items()]


class Counts:
    """Counts by attributes; written by one thread, copied by the SDK's export thread.

    ``list()`` of a dictionary's items is atomic to other threads, so no lock is needed.
    """

    def __init__(self) -> None:
        self.measured: Counter[tuple[str, str, bool]] = Counter()
        """Runs, by task, state, and whether they had their process to themselves."""
        self.exits: Counter[tuple[str, str]] = Counter()
        """Ends of processes, by slot and reason."""
        self.repeated: Counter[str] = Counter()
        """Losses by messages that had cost a process before, by task."""
        self.aborted = 0
        """Runs whose tracing was stopped before their end."""

    def levels(self) -> dict[c.Metric, Callable[[], list[Level]]]:
        """The callback of each metric."""
        return {
            c.MEASURED: self._measured_levels,
            c.PROCESS_EXITS: self._exit_levels,
            c.EXITS_REPEATED: self._repeated_levels,
            # From zero on: a count that begins at one shows no increase.
            c.TRACING_ABORTED: lambda: [(self.aborted, {})],
        }

    def clear(self) -> None:
        """Starts again at zero."""
        self.measured.clear()
        self.exits.clear()
        self.repeated.clear()
        self.aborted = 0

    def _measured_levels(self) -> list[Level]:
        return [
            (count, {c.TASK_NAME: task, c.TASK_STATE: state, c.EXCLUSIVE: exclusive})
            for (task, state, exclusive), count in list(self.measured.items())
        ]

    def _exit_levels(self) -> list[Level]:
        return [
            (count, {c.SLOT: slot, c.EXIT_REASON: reason})
            for (slot, reason), count in list(self.exits.items())
        ]

    def _repeated_levels(self) -> list[Level]:
        return [(count, {c.TASK_NAME: task}) for task, count in list(self.repeated.items())]


WINDOW_S = 600.0
_SPACING_S = 10.0


class TracingShare:
    """Change of the totals of task time and tracing time over the last ten minutes."""

    def __init__(
        self,
        totals: Callable[[], tuple[float, float]],
        clock_s: Callable[[], float] = time.monotonic,
        *,
        from_zero: bool = False,
    ) -> None:
        """``from_zero`` counts what the totals are now: all of it is recent.

        Use it where the worker has just started: tasks run in the second that a reporter needs.
        """
        self._totals = totals
        self._clock_s = clock_s
        # Replaced and never changed: the export thread reads it too.
        self._seen: tuple[tuple[float, float, float], ...] = (
            (clock_s(), *((0.0, 0.0) if from_zero else totals())),
        )

    def share(self) -> float | None:
        """Seconds of tracing per second of task time; ``None`` if no task ran."""
        task_s, spent_s = self.seconds()
        return spent_s / task_s if task_s else None

    def seconds(self) -> tuple[float, float]:
        """Task time and tracing time in the window, in seconds; both 0 if no task ran."""
        now_s = self._clock_s()
        task_s, spent_s = self._totals()
        seen = self._seen
        while len(seen) > 1 and now_s - seen[1][0] >= WINDOW_S:
            seen = seen[1:]
        _, task_before_s, spent_before_s = seen[0]
        if now_s - seen[-1][0] >= _SPACING_S:
            seen = (*seen, (now_s, task_s, spent_s))
        self._seen = seen
        if task_s <= task_before_s:
            return 0.0, 0.0
        return task_s - task_before_s, max(spent_s - spent_before_s, 0.0)
