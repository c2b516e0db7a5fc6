"""The processes that tasks start: their memory, which run began each, and which are left behind.

A *descendant* was started by a process of the worker, or by a descendant, and is neither of the
pool nor a reporter.

- **Finding them.** Where the kernel lists the children of a process, their cost does not depend on
  what else the machine runs. Elsewhere all processes are read. What was found once stays a
  descendant when its parent ends, known by pid and start time. A process whose parent had ended
  before anybody looked is found by its session or process group, if a process of ours leads that;
  one that has left both (a daemon) is not found, unless the worker adopts it as process 1.
- **Cost.** A look comes once a second at most and uses at most half a percent of one core, and so
  does the search among all processes, which reads only those that are new.
- **Never a wrong number.** A child between fork and exec may still have its parent's memory as its
  own (`vfork`): it counts from the next look on, as does what has just started. Zombies count
  nothing. Where a process is hidden, or there are more than `DESCENDANTS_MAX`, the sums of its slot
  are absent.
- **Whose they are.** A descendant is of the run that was in flight in its parent when it started;
  what it starts is of the same run. Starts of processes are known to a tick of 10 ms. If runs of
  two tasks took turns within it, it is of the one that has started processes before, or of none.
- **Peaks** of runs are those of the looks: what rises and falls within a second is not seen.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import MAIN_SLOT, TaskFinished, slot_name
from otel_celery_memory.probes.procfs import (
    PROC,
    TICK_NS,
    ProcessStat,
    boot_time_ns,
    exists,
    lists_children,
    read_children,
    read_cmdline,
    read_pids,
    read_shared,
    read_size,
    read_stat,
)
from otel_celery_memory.reporter.state.processes import ProcessState
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.telemetry.events import DescendantsLeft
from otel_celery_memory.telemetry.metrics import BoundedNames

LOOK_S = 1.0
SEARCH_S = 5.0
"""Between two searches for descendants whose parent has ended."""
COST_FACTOR = 200
"""A look, and a search, may use at most a two-hundredth of the CPU time of one core."""
DESCENDANTS_MAX = 2_000
LEFT_AFTER_NS = 5_000_000_000
"""A process may still be ending for so long after the run that started it."""
WORTH_A_LOOK_BYTES = 16 << 20
"""What processes that were left behind have together when that becomes an event."""
_OF_THE_POOL_NS = 10_000_000_000
"""A child of the main process is known by then if it is of the pool: those are sent every 3 s."""
_EXEC_WITHIN_NS = 100_000_000
"""A new process is in a program of its own by then, nearly always."""
_POOL_HELPER = "billiard"
"""In the command lines of the processes that billiard starts to spawn children."""
_PIPELINE_STARTS_NS = 2_000_000_000
_RUNS_KEPT = 64
_STARTERS_MAX = 1_000
_CLOCKS_DIFFER_NS = 1_000_000
"""Starts of runs are by the wall clock, those of processes by the time since boot."""
_UNIQUE_S = 60.0
_UNIQUE_COST_FACTOR = 1_000
_UNIQUE_CHANGE_BYTES = 1 << 20
_UNIQUE_PER_LOOK_S = 0.05
"""Unique memory of thousands of processes is read in several looks."""


class Run(NamedTuple):
    """A run of a task; ``task_id`` is empty if it is one of several of that task.

    ``ended_ns`` is ``None`` while it is in flight.
    """

    task: str
    task_id: str
    started_ns: int
    ended_ns: int | None = None


@dataclass(frozen=True)
class DescendantsSize:
    """Descendants of one slot that runs of one task began; ``None``: not known.

    ``left`` is how many of the ``processes`` belong to runs that have ended.
    """

    slot: str
    task: str | None
    processes: int
    rss_bytes: int | None
    unique_bytes: int | None
    left: int = 0


@dataclass
class _Descendant:
    stat: ProcessStat
    owner: ProcessState
    """The process of the worker that it descends from."""
    run: Run | None = None
    rss_bytes: int = 0
    unique_bytes: int | None = None
    unique_of_rss_bytes: int = 0
    unique_due_s: float = 0.0

    @property
    def pid(self) -> int:
        return self.stat.pid

    @property
    def ended_ns(self) -> int | None:
        """When its run ended; ``None`` while that is in flight, or where it is not known."""
        return None if self.run is None else self.run.ended_ns


@dataclass
class _Look:
    """One look: where it begins, and what it has found so far."""

    roots: Mapping[int, ProcessState]
    """The processes of the worker."""
    children_of: Callable[[int], Iterable[int]]
    found: dict[int, _Descendant] = field(default_factory=dict)
    waiting: list[tuple[int, ProcessState, Run | None]] = field(default_factory=list)
    """Those whose children are not looked for yet: pid, the worker's process, the run."""
    hidden: set[int | None] = field(default_factory=set)
    """Slots of which not all descendants could be read."""


_Groups = dict[tuple[int | None, str | None], list[_Descendant]]
"""By slot and task."""


class DescendantsEmitter(Protocol):
    """What `Descendants` needs of the emitter."""

    state: WorkerState

    def emit_tree_peak(self, record: TaskFinished, peak_bytes: int) -> None:
        """Emits the peak of a run with the processes that it started."""

    def emit_descendants_left(self, left: DescendantsLeft, now_ns: int) -> None:
        """Emits that processes still run whose runs have ended."""


class Descendants:
    """Looks for the descendants of one worker's processes; called by one thread at a time."""

    def __init__(
        self,
        emitter: DescendantsEmitter,
        main_pid: int,
        proc: Path = PROC,
        clock_s: Callable[[], float] = time.monotonic,
        cpu_clock_s: Callable[[], float] = time.thread_time,
        boot_ns: Callable[[], int] = boot_time_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """``cpu_clock_s`` is the CPU time that the calling thread has used."""
        self._emitter = emitter
        self._main_pid = main_pid
        self._proc = proc
        self._clock_s = clock_s
        self._cpu_clock_s = cpu_clock_s
        self._boot_ns = boot_ns
        self._wall_ns = wall_ns
        self._due_s = self._search_due_s = clock_s()
        self._search_cost_s = 0.0
        self._known: dict[int, _Descendant] = {}
        self._of_runs: dict[str, list[_Descendant]] = {}
        """Those of runs in flight, by the run's id."""
        self._leaders: dict[int, _Descendant] = {}
        self._pids: set[int] = set()
        self._ended_runs: dict[int, deque[Run]] = {}
        self._peaks: dict[int, dict[str, int]] = {}
        self._starters: set[str] = set()
        """Tasks that have started processes, as is sure of one at least of each."""
        self._emitted: dict[tuple[int | None, str], int] = {}
        self._slots: set[str] = set()
        self._names = BoundedNames(c.TASK_NAMES_MAX)
        self.left_bytes: Mapping[str, int] = {}
        """What was left behind, by task, of all that ever left any; replaced, never changed."""
        self.sizes: tuple[DescendantsSize, ...] = ()
        """As of the last look; replaced and never changed, as other threads read it."""

    def finished(self, record: TaskFinished) -> None:
        """A run has ended; its peak is emitted if it had descendants at a look."""
        if record.nested:
            return
        run = Run(record.task, record.task_id, record.started_ns, record.time_ns)
        runs = self._ended_runs.get(record.pid)
        if runs is None:
            runs = self._ended_runs[record.pid] = deque(maxlen=_RUNS_KEPT)
        runs.append(run)
        if not self._of_runs and not self._peaks:
            return  # as of most runs
        for each in self._of_runs.pop(record.task_id, ()):
            each.run = run
        peak_bytes = self._peaks.get(record.pid, {}).pop(record.task_id, None)
        if peak_bytes is not None and record.exclusive:
            above_start = peak_bytes - record.rss_start_bytes
            self._emitter.emit_tree_peak(record, max(above_start, record.rss_peak_bytes or 0))

    def look(self) -> None:
        """Looks for them, if a look is due."""
        now_s = self._clock_s()
        if now_s < self._due_s:
            return
        self._due_s = now_s + LOOK_S
        used_s, self._search_cost_s = self._cpu_clock_s(), 0.0
        try:
            self._look(now_s)
        finally:
            cost_s = self._cpu_clock_s() - used_s - self._search_cost_s
            self._due_s = now_s + max(LOOK_S, cost_s * COST_FACTOR)

    def _look(self, now_s: float) -> None:
        roots = {
            pid: process
            for pid, process in list(self._emitter.state.processes.items())
            if process.gone_ns is None and process.slot is not None
        }
        look = _Look(roots, self._children())
        look.waiting = [(pid, root, None) for pid, root in roots.items()]
        self._walk(look)
        # Where its parent has ended, a process was not met on the way.
        for pid in set(self._known) - set(look.found) - set(roots):
            known, stat = self._known[pid], read_stat(pid, self._proc)
            if stat is not None and known.stat.is_same(stat):
                self._meet(stat, known.owner, known.run, look)
        self._walk(look)
        if now_s >= self._search_due_s:
            self._search(now_s, look)
        self._known = look.found
        self._leaders.update({pid: each for pid, each in look.found.items() if each.stat.is_leader})
        self._read_unique(now_s)
        self._note_ended(roots)
        self._note_peaks(roots)
        self._publish(look)

    def _children(self) -> Callable[[int], Iterable[int]]:
        if lists_children(self._proc):
            return lambda pid: read_children(pid, self._proc)
        by_parent: dict[int, list[int]] = {}
        for pid in read_pids(self._proc):
            stat = read_stat(pid, self._proc)
            if stat is not None:
                by_parent.setdefault(stat.parent, []).append(pid)
        return lambda pid: by_parent.get(pid, ())

    def _walk(self, look: _Look) -> None:
        """Finds what the waiting processes have started, what that has started, and so on."""
        while look.waiting:
            parent, owner, run = look.waiting.pop()
            for pid in look.children_of(parent):
                if pid in look.roots or pid in look.found or pid == os.getpid():
                    continue
                stat = read_stat(pid, self._proc)
                if stat is None:
                    if exists(pid):
                        look.hidden.add(owner.slot)
                elif stat.parent == parent:  # else its pid is another process's by now
                    self._meet(stat, owner, run, look)

    def _meet(self, stat: ProcessStat, owner: ProcessState, run: Run | None, look: _Look) -> None:
        known = self._known.get(stat.pid)
        if known is not None and known.stat.is_same(stat):
            known.stat = stat
            self._add(known, look)
            return
        new = _Descendant(stat, owner, run)
        of_the_pool = stat.parent == owner.pid and self._may_be_of_the_pool(new)
        if not of_the_pool and not self._may_be_in_parent_s_memory(stat):
            self._add(new, look)

    def _may_be_in_parent_s_memory(self, stat: ProcessStat) -> bool:
        """Whether a new process may still run in its parent's memory, until its exec (`vfork`)."""
        if self._wall_ns() - self._started_ns(stat) < _EXEC_WITHIN_NS:
            return True
        size = read_size(stat.pid, self._proc)
        return size is not None and size == read_size(stat.parent, self._proc)

    def _add(self, each: _Descendant, look: _Look) -> None:
        """Adds a process to what was found, unless it has no memory."""
        if len(look.found) >= DESCENDANTS_MAX:
            look.hidden.add(each.owner.slot)
            return
        size = None if each.stat.ended else read_size(each.pid, self._proc)
        if size is not None:
            each.rss_bytes = size.rss_bytes
            each.run = each.run or self._run_that_began(each)
            look.found[each.pid] = each
            look.waiting.append((each.pid, each.owner, each.run))

    def _may_be_of_the_pool(self, child: _Descendant) -> bool:
        if child.owner.slot != MAIN_SLOT or child.owner.tasks or child.owner.in_flight:
            return False
        young = self._wall_ns() - self._started_ns(child.stat) < _OF_THE_POOL_NS
        return young or _POOL_HELPER in read_cmdline(child.pid, self._proc)

    def _search(self, now_s: float, look: _Look) -> None:
        """Finds descendants whose parent had ended before a look, among all new processes."""
        used_s = self._cpu_clock_s()
        main = read_stat(self._main_pid, self._proc) if self._main_pid in look.roots else None
        leaders = {
            pid: leader
            for pid, leader in self._leaders.items()
            if (stat := read_stat(pid, self._proc)) is None or leader.stat.is_same(stat)
        }
        pids = read_pids(self._proc)
        for pid in pids - self._pids - set(look.roots) - set(look.found) - {os.getpid()}:
            stat = read_stat(pid, self._proc)
            if stat is None:
                continue
            leader = leaders.get(stat.session) or leaders.get(stat.group)
            if leader is not None:
                self._add(_Descendant(stat, leader.owner, leader.run), look)
            elif main is not None and self._is_orphan_of(stat, main):
                self._add(self._of_some_run(stat, look), look)
        self._walk(look)
        self._pids = pids
        led = {number for each in look.found.values() for number in _numbers_of(each.stat)}
        self._leaders = {pid: leader for pid, leader in leaders.items() if pid in led}
        self._search_cost_s = self._cpu_clock_s() - used_s
        self._search_due_s = now_s + max(SEARCH_S, self._search_cost_s * COST_FACTOR)

    def _is_orphan_of(self, stat: ProcessStat, main: ProcessStat) -> bool:
        """Whether only the worker can have started a process whose parent has ended.

        It is in the session or process group that the main process leads, and its parent, who
        adopts orphans, is not. Of a group a shell may have made a pipeline, whose processes all
        start at once.
        """
        parent = read_stat(stat.parent, self._proc)
        if parent is None:
            return False
        later = (stat.start_ticks - main.start_ticks) * TICK_NS > _PIPELINE_STARTS_NS
        of_session = main.session == main.pid == stat.session != parent.session
        of_group = later and main.group == main.pid == stat.group != parent.group
        return of_session or of_group

    def _of_some_run(self, stat: ProcessStat, look: _Look) -> _Descendant:
        """An orphan is of the slot whose run began it, or of main if that is not known."""
        found = [_Descendant(stat, root) for root in look.roots.values()]
        began = [each for each in found if self._run_that_began(each) is not None]
        return began[0] if len(began) == 1 else _Descendant(stat, look.roots[self._main_pid])

    def _run_that_began(self, each: _Descendant) -> Run | None:
        owner = each.owner
        running = [] if owner.idle else [task for task in owner.in_flight if not task.nested]
        runs = [Run(task.task, task.task_id, task.time_ns) for task in running]
        ended = self._ended_runs.get(owner.pid, ())
        found = run_that_began(self._started_ns(each.stat), [*ended, *runs], self._starters)
        if found is not None and len(self._starters) < _STARTERS_MAX:
            self._starters.add(found.task)
        return found

    def _started_ns(self, stat: ProcessStat) -> int:
        return self._boot_ns() + stat.start_ticks * TICK_NS

    def _read_unique(self, now_s: float) -> None:
        """Reads unique memory where it may have changed: the kernel locks a process's map for it.

        That of thousands of processes is read in several looks.
        """
        used_s = self._cpu_clock_s()
        for each in sorted(self._known.values(), key=lambda each: each.unique_due_s):
            change_bytes = abs(each.rss_bytes - each.unique_of_rss_bytes)
            changed = change_bytes >= max(_UNIQUE_CHANGE_BYTES, each.rss_bytes // 50)
            wait_s = 0.0 if changed or each.unique_bytes is None else _UNIQUE_S
            if now_s < each.unique_due_s + wait_s:
                continue
            began_s = self._cpu_clock_s()
            if began_s - used_s > _UNIQUE_PER_LOOK_S:
                break
            each.unique_bytes = read_shared(each.pid, self._proc).unique_bytes
            each.unique_of_rss_bytes = each.rss_bytes
            cost_s = self._cpu_clock_s() - began_s
            each.unique_due_s = now_s + max(LOOK_S, cost_s * _UNIQUE_COST_FACTOR)

    def _note_ended(self, roots: Mapping[int, ProcessState]) -> None:
        """A run whose process has ended has ended, too."""
        for each in self._known.values():
            if each.run is not None and each.run.ended_ns is None and each.owner.pid not in roots:
                each.run = each.run._replace(ended_ns=self._wall_ns())
        self._ended_runs = {pid: runs for pid, runs in self._ended_runs.items() if pid in roots}
        self._peaks = {pid: peaks for pid, peaks in self._peaks.items() if pid in roots}

    def _note_peaks(self, roots: Mapping[int, ProcessState]) -> None:
        self._of_runs = {}
        for each in self._known.values():
            if each.run is not None and each.run.task_id and each.run.ended_ns is None:
                self._of_runs.setdefault(each.run.task_id, []).append(each)
        for task_id, members in self._of_runs.items():
            pid = members[0].owner.pid
            size = read_size(pid, self._proc) if pid in roots else None
            if size is not None:
                peaks = self._peaks.setdefault(pid, {})
                peak_bytes = size.rss_bytes + sum(each.rss_bytes for each in members)
                peaks[task_id] = max(peaks.get(task_id, 0), peak_bytes)
                if len(peaks) > _RUNS_KEPT:
                    del peaks[next(iter(peaks))]  # its end was dropped

    def _publish(self, look: _Look) -> None:
        groups: _Groups = {}
        for each in self._known.values():
            task = each.run.task if each.run is not None else None
            groups.setdefault((each.owner.slot, task), []).append(each)
        sizes = []
        for (slot, task), members in groups.items():
            size = _size_of(slot_name(slot), task, members)
            if slot in look.hidden:
                size = replace(size, rss_bytes=None, unique_bytes=None)
            sizes.append(size)
        with_sizes = {size.slot for size in sizes}
        # A slot that had descendants has none now: else its last number would stand for minutes.
        none_left = self._slots - with_sizes - {slot_name(slot) for slot in look.hidden}
        self._slots |= with_sizes
        sizes += [DescendantsSize(slot, None, 0, 0, 0) for slot in sorted(none_left)]
        self.sizes = tuple(sorted(sizes, key=lambda size: -(size.rss_bytes or 0)))
        self._emit_left(groups, self._wall_ns())

    def _emit_left(self, groups: _Groups, now_ns: int) -> None:
        before, self._emitted = self._emitted, {}
        # A task of which nothing is left any more: else its last number would stand for minutes.
        left_bytes = dict.fromkeys(self.left_bytes, 0)
        for (slot, task), members in groups.items():
            left = [each for each in members if _is_left(each, now_ns)]
            if task is None or not left:
                continue
            size = _size_of(slot_name(slot), task, left)
            size_bytes = size.unique_bytes if size.unique_bytes is not None else size.rss_bytes or 0
            name = self._names.bounded(task)
            left_bytes[name] = left_bytes.get(name, 0) + size_bytes
            emitted_bytes = before.get((slot, task), 0)
            if size_bytes >= max(WORTH_A_LOOK_BYTES, 2 * emitted_bytes):
                emitted_bytes = size_bytes
                self._emitter.emit_descendants_left(_left_of(size, left, now_ns), now_ns)
            if size_bytes >= WORTH_A_LOOK_BYTES // 2 and emitted_bytes:
                self._emitted[slot, task] = emitted_bytes
        self.left_bytes = left_bytes


def run_that_began(
    started_ns: int, runs: Sequence[Run], starters: Collection[str] = ()
) -> Run | None:
    """The run in which a process started; ``started_ns`` is cut off to the tick before it.

    The one that covers the whole tick, or else the only one that touches it. If runs of several
    tasks took turns in it, that of one of ``starters``, tasks that are known to start processes.
    """

    def within(first_ns: int, last_ns: int) -> list[Run]:
        """The runs that had begun by the first time and not ended before the second."""
        return [
            run
            for run in runs
            if run.started_ns <= first_ns and (run.ended_ns is None or run.ended_ns >= last_ns)
        ]

    ended_ns = started_ns + TICK_NS
    covering = within(started_ns, ended_ns)
    candidates = covering or within(ended_ns + _CLOCKS_DIFFER_NS, started_ns - _CLOCKS_DIFFER_NS)
    if len({run.task for run in candidates}) > 1 and not covering:
        candidates = [run for run in candidates if run.task in starters]
    if len({run.task for run in candidates}) != 1:
        return None
    if len(candidates) == 1:
        return candidates[0]
    ends = [run.ended_ns for run in candidates if run.ended_ns is not None]
    all_ended = len(ends) == len(candidates)
    return candidates[0]._replace(task_id="", ended_ns=max(ends) if all_ended else None)


def _numbers_of(stat: ProcessStat) -> tuple[int, int, int]:
    return stat.pid, stat.session, stat.group


def _is_left(each: _Descendant, now_ns: int) -> bool:
    return each.ended_ns is not None and now_ns - each.ended_ns >= LEFT_AFTER_NS


def _size_of(slot: str, task: str | None, members: list[_Descendant]) -> DescendantsSize:
    unique = [each.unique_bytes for each in members if each.unique_bytes is not None]
    return DescendantsSize(
        slot,
        task,
        len(members),
        sum(each.rss_bytes for each in members),
        sum(unique) if len(unique) == len(members) else None,
        sum(each.ended_ns is not None for each in members),
    )


def _left_of(size: DescendantsSize, left: list[_Descendant], now_ns: int) -> DescendantsLeft:
    largest = max(left, key=lambda each: each.rss_bytes)
    run = largest.run
    assert run is not None and run.ended_ns is not None
    return DescendantsLeft(
        slot=size.slot,
        task=run.task,
        task_id=run.task_id or None,
        pid=largest.pid,
        name=largest.stat.name,
        processes=size.processes,
        rss_bytes=size.rss_bytes or 0,
        unique_bytes=size.unique_bytes,
        age_s=round((now_ns - run.ended_ns) / 1e9, 3),
    )
