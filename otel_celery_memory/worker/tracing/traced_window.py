"""One window of allocation tracing: consecutive runs of a process, and what they leave behind.

What is alive after a run is not yet left behind: a run replaces a slot, fills a cache, shows its
arguments. So a window covers several runs, and is looked at between runs, at moments that are
alike: what is alive at the last look and was not at an earlier one of the same window has grown
with the number of runs. What every run shows once is alive at both. Looks are taken after 1, 2, 4,
8, … runs, and the last one is compared with that after two runs or a quarter of them, when a
small container is full.

What a run that raised has left is alive until the next one has ended: the pool holds its result,
with the traceback and all its frames. So a last look that comes after such a run is compared with
one that came after a failed run of the same task, or with none.

What was allocated before the window and is freed in it is not seen by ``tracemalloc``: a full cache
seems to grow. So the allocators' own levels are read at each boundary of runs, by task. No task has
left behind more than what they say (`Found.left_by`).

Where runs overlap, what those in flight have just then is alive at a look, too. So a look that
comes after few runs, beside many in flight, is not compared; and of each stack so much is no growth
as belongs to the runs of its task that are in flight at the last look and were not at the earlier
one (`Found.in_flight`). Levels have a part of it, too, so the course of many of them is taken
instead of two (`_Course`).

Windows of one run compare nothing: they say what is alive after it. A capture has such windows.

The guard is no thread: an alarm (`probes/urgent_signal.py`) calls `SampledTracing` in the main
thread. It may interrupt a method of the window, in the same thread, and finds it busy then.
"""

from __future__ import annotations

import gc
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from otel_celery_memory.probes.allocators import (
    HeapReading,
    full_collections,
    is_frozen,
    read_heap,
)
from otel_celery_memory.probes.native_threads import native_lock
from otel_celery_memory.probes.sites import (
    LiveSites,
    NoCollections,
    Traces,
    group_traces,
    growing_throughout,
    growth,
    still_alive,
    take_traces,
)
from otel_celery_memory.probes.tracemalloc_session import TracemallocSession

_SUSPECT_BLOCKS, _SUSPECT_RUNS = 3, 10
_RUNS_A_RUN_IN_FLIGHT = 2
"""A window says something where so many runs have ended in it for each that is in flight."""
_COURSE_LEAST = 6
"""Of fewer levels, with runs in flight, nothing is said."""
_LOOK_MAX_TRACES = 100_000
_MIDDLE_MAX_TRACES = 20_000
"""A look between is grouped, too, if it has no more than that: 5 ms."""
_FIRST_LOOK_MAX_TRACES = 20_000
"""A single run's traces are taken at its end, too, if they are no more than that."""
_COLLECTED_MAX_BLOCKS = 2_000_000
"""Of a larger heap, a full collection would hold the next run for more than 50 ms."""
ALL = ""
"""In place of a task's name: all that ran in the window."""
_LEVEL_COST_MAX_S = 0.005
"""Where reading malloc's level takes longer than that, blocks alone are read. It visits each free
piece of the heap: 0.5 ms for some ten thousand of them, as a process of 300 MB has."""


@dataclass(frozen=True)
class Left:
    """The most that runs of a task have left behind: blocks of the interpreter's own allocator, and
    bytes of malloc, ``None`` where its level is not known."""

    blocks: float
    malloc_bytes: float | None


@dataclass(frozen=True)
class InFlight:
    """Runs of the window that are in flight at its last look; how many fewer at the earlier one."""

    runs: int
    fewer_before: int

    def held(self, alive: tuple[int, int]) -> tuple[int, int]:
        """Of bytes and blocks that are alive at one stack: what only the runs hold that are more.

        If no run has left any of it behind, each of those in flight has its part.
        """
        share = min(max(self.fewer_before, 0) / self.runs, 1.0)
        return round(alive[0] * share), round(alive[1] * share)


@dataclass(frozen=True)
class Found:
    """What one window found.

    ``runs`` are those that ``sites`` cover, by task. ``grown``: ``sites`` is what these runs have
    added to what was alive before them in the window; it is bounded by ``left_by``, which has what
    they have left behind together under `ALL`.
    Otherwise it is what was alive after a single run, or after a part of one (``whole`` is false),
    or when tracing was stopped (``aborted``).
    """

    sites: LiveSites
    runs: Mapping[str, int]
    grown: bool = False
    whole: bool = False
    aborted: bool = False
    left_by: Mapping[str, Left] = field(default_factory=dict)
    alive: LiveSites = field(default_factory=dict)
    """What is alive at the last look, where runs are in flight then."""
    in_flight: Mapping[str, InFlight] = field(default_factory=dict)
    """By task, and under `ALL`, the runs in flight at the last look, if there are any."""
    steady: LiveSites | None = None
    """Of ``sites``, what has grown in both parts of these runs, by the slower pace of the two. A
    table of Celery's that was made anew in the window seems to have grown, once. ``None`` where
    there was no look between, or too much is alive for one more to be grouped."""
    raised: frozenset[str] = frozenset()
    """Tasks of which a run in the window has raised, or was retried."""
    may_be_garbage: bool = False
    """Whether a full collection could not yet be made before the last look, and soon can."""
    each_ran_before: bool = False
    """Whether each of these tasks had also run before them in the window: otherwise what Celery
    keeps of the last run of each task seems to have grown."""


@dataclass(frozen=True)
class _Totals:
    """What runs of one task have added to the allocators' levels in the window.

    ``counted``: of how many of the ``runs`` that is known.
    """

    runs: int = 0
    counted: int = 0
    blocks: int = 0
    size_bytes: int = 0

    def left_since(self, earlier: _Totals, *, malloc: bool) -> Left:
        """The most that its runs since then have left behind, as those that were counted."""
        counted = self.counted - earlier.counted
        scale = (self.runs - earlier.runs) / counted if counted else 0.0
        blocks = (self.blocks - earlier.blocks) * scale
        size_bytes = (self.size_bytes - earlier.size_bytes) * scale
        return Left(max(blocks, 0.0), max(size_bytes, 0.0) if malloc else None)


class _Course:
    """The levels at each boundary of runs: how they grow, whatever is in flight at some of them."""

    def __init__(self) -> None:
        # Arrays, as what is kept in mind would count itself otherwise.
        self._blocks, self._bytes = array("q", [0]), array("q", [0])

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, blocks: int, size_bytes: int) -> None:
        """The next level is so much higher."""
        self._blocks.append(self._blocks[-1] + blocks)
        self._bytes.append(self._bytes[-1] + size_bytes)

    def left_since(self, at: int, *, malloc: bool) -> Left | None:
        """The most that was left behind since it had so many levels; ``None`` of too few."""
        if len(self) - at < _COURSE_LEAST:
            return None
        size_bytes = _growth(self._bytes[at:])
        return Left(_growth(self._blocks[at:]), size_bytes if malloc else None)


def _growth(levels: array[int]) -> float:
    """By how much they have grown from the median of the first third to that of the last."""
    third = len(levels) // 3
    risen = median(levels[-third:]) - median(levels[:third])
    return max(risen, 0.0) * len(levels) / (len(levels) - third)


@dataclass(frozen=True)
class _Look:
    at_runs: int
    traces: Traces
    totals: Mapping[str, _Totals]
    failed: str
    """The task whose run came before it, if that raised; empty where it did not."""
    in_flight: Counter[str]
    levels: int
    """How many levels the course of the window had."""


class TracedWindow:
    """A window of one process; every method may be called from any thread."""

    def __init__(
        self,
        tracer: TracemallocSession,
        *,
        whole: bool = True,
        compared: bool = True,
        read: Callable[[], HeapReading] = read_heap,
        collect: Callable[[], object] = gc.collect,
    ) -> None:
        """``whole``: it begins with a run, not in one. ``compared``: it may have several runs."""
        self._tracer = tracer
        self.whole = whole
        self._compared = compared
        self._read_heap = read
        self._collect = collect
        self._lock = native_lock()
        self._reads_malloc = True
        self._session = 0
        self._single: Traces | None = None
        self._looks: list[_Look] = []
        self._totals: dict[str, _Totals] = {}
        self._started: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._course = _Course()
        self._overlap = False
        self._unbooked: list[str] = []
        self._alone = False
        self._level: tuple[int, int | None] | None = None
        """When the run that is booked next began; unknown of the first one."""
        self._collections = 0
        self._failed = ""
        self._raised: set[str] = set()
        self.runs = 0
        """How many runs have ended in it."""
        self.is_open = False

    def open(self, frames: int) -> bool:
        """Begin to trace; ``False`` where the user's code traces."""
        with self._lock:
            # First: a time limit that is raised after `start` must find a window to close.
            self.is_open = True
            self._tracer.free_lists.clear()
            self.is_open = self._tracer.start(frames)
            if not self.is_open:
                self._tracer.free_lists.give_back()
            elif self._tracer.free_lists.takes_out:
                # Again, as what was allocated before is not traced.
                self._tracer.free_lists.clear()
            self._session = self._tracer.session
            return self.is_open

    @property
    def beginners(self) -> int:
        """How many runs of the task that it began with have started in it."""
        return next(iter(self._started.values()), 0)

    @property
    def is_full(self) -> bool:
        """Whether so much is alive that one more look would cost too much."""
        return self._tracer.live_traces() > _LOOK_MAX_TRACES

    def run_starts(self, task: str, *, alone: bool) -> None:
        """A run of `task` starts; ``alone``: it has the process to itself."""
        with self._lock:
            if not self.is_open:
                return
            self._started[task] += 1
            if not self._compared:
                return
            self._overlap = self._overlap or not alone
            self._unbooked.append(task)
            self._alone = alone and len(self._unbooked) == 1

    def task_code_begins(self) -> None:
        """The task's own code is about to run.

        What Celery has freed meanwhile must not be in the interpreter's free lists: a dict that the
        task keeps would come from there, and be told as made by Celery. Not where the user has
        frozen objects: emptying them would be a collection then, and freed garbage be booked.
        """
        with self._lock:
            if self.is_open and not self._tracer.free_lists.frozen_by_user:
                self._tracer.free_lists.clear()
                if self._tracer.free_lists.takes_out:
                    self._tracer.reset_peak()  # else what that took for a moment would be it

    def run_ends(self, task: str, *, raised: bool = False) -> None:
        """A run of `task` has ended; its return value is still alive."""
        with self._lock:
            self.runs += 1
            self._ended[task] += 1
            self._failed = task if raised else ""
            if raised:
                self._raised.add(task)
            if not self.is_open or self.runs > 1 or not self.whole:
                return
            if self._tracer.live_traces() <= _FIRST_LOOK_MAX_TRACES:
                self._tracer.free_lists.clear()
                with NoCollections():
                    self._single = take_traces()

    def between_runs(self) -> None:
        """The next run is about to start: book what the last one left, and look if it is time."""
        with self._lock:
            if not self.is_open or not self._compared or not self._is_ours():
                return
            now = self._book()
            if self.runs and self.runs & (self.runs - 1) == 0:  # 1, 2, 4, 8, …
                # What is not kept any more must be gone when the level is read.
                self._single, self._looks = None, self._looks[-2:]
                with NoCollections():
                    traces = take_traces()
                totals = dict(self._totals)
                failed, in_flight = self._failed, self._in_flight()
                self._looks.append(
                    _Look(self.runs, traces, totals, failed, in_flight, len(self._course))
                )
                del traces
                now = None
            self._collections = self._full_collections()
            self._level = now or self._read_level()

    def close(self, *, aborted: bool = False, wait: bool = True) -> Found | None:
        """Close the window: stop tracing, then find out what its runs have left behind.

        ``aborted``: in the middle of a run. ``None`` where it is closed already, or, without
        ``wait``, where it is busy.
        """
        if not self._lock.acquire(wait):
            return None
        try:
            if not self.is_open:
                return None
            self.is_open = False
            try:
                if not self._is_ours() or (aborted and self._compared):
                    return Found({}, self._started, aborted=True)
                earlier = self._earlier()
                if earlier is not None and self._says_something(earlier):
                    return self._grown(earlier)
                if self.runs > 1:  # too few to compare, and none of them stands alone
                    return Found({}, {}, grown=True)
                return self._alive(aborted=aborted)
            finally:
                # A time limit may be raised while we read.
                self._tracer.stop()
                self._looks, self._single = [], None
        finally:
            self._lock.release()

    def _grown(self, earlier: _Look) -> Found:
        self._book()
        traces = self._alive_now()
        # What seems to have grown may be garbage that waits for the collector.
        more = len(traces) - len(earlier.traces)
        if self._may_collect() and more >= max(
            _SUSPECT_BLOCKS, (self.runs - earlier.at_runs) / _SUSPECT_RUNS
        ):
            self._collect()
            traces = self._alive_now()
        # What grouping allocates would be traced, too, and take four to ten times as long.
        self._tracer.stop()
        with NoCollections():
            first, last = group_traces(earlier.traces), group_traces(traces)
            sites = growth(first, last)
            steady = self._steady(earlier, first, last)
        in_flight = {
            task: InFlight(runs, runs - earlier.in_flight[task])
            for task, runs in self._in_flight().items()
        }
        alive = last if in_flight else {}
        del traces, first, last
        since = {
            task: (totals, earlier.totals.get(task, _Totals()))
            for task, totals in self._totals.items()
        }
        runs = {task: now.runs - then.runs for task, (now, then) in since.items()}
        left_by = {
            task: now.left_since(then, malloc=self._reads_malloc)
            for task, (now, then) in since.items()
            if now.counted > then.counted
        }
        if self._overlap:
            left_by.pop(ALL, None)
            if left := self._course.left_since(earlier.levels, malloc=self._reads_malloc):
                left_by[ALL] = left
        del runs[ALL]
        ran_before = all(task in earlier.totals for task, count in runs.items() if count)
        return Found(
            sites,
            runs,
            grown=True,
            whole=True,
            left_by=left_by,
            alive=alive,
            in_flight=in_flight,
            steady=steady,
            raised=frozenset(self._raised),
            # Where the collector is the user's, what it leaves is what there is to know.
            may_be_garbage=not self._is_collector_users() and self._is_shared(),
            each_ran_before=ran_before,
        )

    def _says_something(self, earlier: _Look) -> bool:
        """Whether enough runs have ended since that look, beside those in flight."""
        return self.runs - earlier.at_runs >= _RUNS_A_RUN_IN_FLIGHT * self._in_flight()[ALL]

    def _in_flight(self) -> Counter[str]:
        """Runs that started in the window and have not ended, by task and in all."""
        found = self._started - self._ended
        total = sum(found.values())
        return found + Counter({ALL: total})

    def _steady(self, earlier: _Look, first: LiveSites, last: LiveSites) -> LiveSites | None:
        middle_runs = (earlier.at_runs + self.runs) / 2
        between = [
            look
            for look in self._looks
            if earlier.at_runs < look.at_runs < self.runs and self._is_comparable(look)
        ]
        middle = min(between, key=lambda look: abs(look.at_runs - middle_runs), default=None)
        if middle is None or len(middle.traces) > _MIDDLE_MAX_TRACES:
            return None
        alive = group_traces(middle.traces)
        return growing_throughout(
            growth(first, alive),
            growth(alive, last),
            (middle.at_runs - earlier.at_runs) / (self.runs - earlier.at_runs),
        )

    def _alive_now(self) -> Traces:
        self._tracer.free_lists.clear()
        with NoCollections():
            return take_traces()

    def _alive(self, *, aborted: bool) -> Found:
        self._tracer.free_lists.clear()
        first = self._single
        with NoCollections():
            traces = take_traces()
            self._tracer.stop()
            sites = group_traces(traces)
            if first is not None:
                # The return value, which was alive then, and the next task's arguments, which may
                # be now, are in one of the two only.
                sites = still_alive(group_traces(first), sites)
        return Found(sites, self._started, whole=self.whole and not aborted, aborted=aborted)

    def _earlier(self) -> _Look | None:
        """The look to compare the last one with: the latest of at most a quarter of the runs.

        Not the one after the first run: what is kept until the next run ends was not traced then.
        """
        looks = [
            look
            for look in self._looks
            if 2 <= look.at_runs < self.runs and self._is_comparable(look)
        ]
        settled = [look for look in looks if 4 * look.at_runs <= self.runs]
        return settled[-1] if settled else next(iter(looks), None)

    def _is_comparable(self, look: _Look) -> bool:
        """Whether the pool held as much of the run before it as it does now."""
        return self._failed in ("", look.failed)

    def _book(self) -> tuple[int, int | None] | None:
        """Book what the runs that started since the last time have added.

        Returns the level that it has read, if it had to.
        """
        tasks, self._unbooked = self._unbooked, []
        for task in tasks:
            self._add(task, runs=1)
        self._add(ALL, runs=len(tasks))
        before, self._level = self._level, None
        if before is None:
            return None
        # A full collection frees what other runs have made.
        collected = self._full_collections() != self._collections
        self._tracer.free_lists.clear()
        now = self._read_level()
        blocks = now[0] - before[0]
        size_bytes = (now[1] or 0) - (before[1] or 0)
        if collected:
            return now
        self._course.add(blocks, size_bytes)
        self._add(ALL, counted=len(tasks), blocks=blocks, size_bytes=size_bytes)
        if self._alone and len(tasks) == 1:
            self._add(tasks[0], counted=1, blocks=blocks, size_bytes=size_bytes)
        return now

    def _add(
        self, task: str, runs: int = 0, counted: int = 0, blocks: int = 0, size_bytes: int = 0
    ) -> None:
        now = self._totals.get(task, _Totals())
        self._totals[task] = _Totals(
            now.runs + runs,
            now.counted + counted,
            now.blocks + blocks,
            now.size_bytes + size_bytes,
        )

    def _read_level(self) -> tuple[int, int | None]:
        """Blocks in use, and malloc's bytes without those of ``tracemalloc`` itself."""
        if not self._reads_malloc:
            return sys.getallocatedblocks(), None
        began_s = time.thread_time()
        heap = self._read_heap()
        if time.thread_time() - began_s > _LEVEL_COST_MAX_S:
            self._reads_malloc = False
        if heap.malloc_used_bytes is None:
            self._reads_malloc = False
            return heap.blocks, None
        return heap.blocks, heap.malloc_used_bytes - self._tracer.tracer_bytes()

    def _full_collections(self) -> int:
        """How many full collections there were in this process, without those of nothing."""
        return full_collections() - self._tracer.free_lists.clears

    def _may_collect(self) -> bool:
        """Whether a full collection is ours to make: the user leaves the collector as it is."""
        if self._is_collector_users() or self._is_shared():
            return False
        return sys.getallocatedblocks() <= _COLLECTED_MAX_BLOCKS

    @staticmethod
    def _is_collector_users() -> bool:
        """Whether the user has disabled the collector, or frozen objects."""
        return not gc.isenabled() or is_frozen()

    def _is_shared(self) -> bool:
        """Whether the heap is still shared with the main process, until a first full collection."""
        return self._tracer.free_lists.shared_heap.is_shared()

    def _is_ours(self) -> bool:
        """Whether it is still this window's tracing that is on."""
        return self._tracer.session == self._session != 0
