"""Watches whether the worker's memory grows, and concludes who leaks.

Records go into levels (`levels.py`) and into what is known of each task (`task_facts.py`). Every
five seconds each resource is asked whether it grows (`leaks/growth.py`). If one does, verdicts are
drawn (`leaks/conclusion.py`), and those that have changed are emitted. A suspicion orders a census
of its task, so that the verdict names what holds the objects.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    FloorMeasured,
    HeapSampled,
    MessagesHeld,
    Record,
    RunRetained,
    TaskFinished,
    TaskStarted,
    slot_name,
)
from otel_celery_memory.leaks.conclusion import Evidence, Growing, conclude
from otel_celery_memory.leaks.growth import GrowthDetector, GrowthRules, Step, counted_rules
from otel_celery_memory.leaks.resource import Resource
from otel_celery_memory.leaks.standing import StandingVerdicts
from otel_celery_memory.leaks.verdict import Interval, Kind, State, Verdict
from otel_celery_memory.probes.allocators import SMALL_BLOCK_BYTES
from otel_celery_memory.reporter.emitter import Emitter
from otel_celery_memory.reporter.levels import WARM_UP_S, Change, LevelSteps
from otel_celery_memory.reporter.lowest_levels import LowestLevels
from otel_celery_memory.reporter.outlook import Outlook
from otel_celery_memory.reporter.state.totals import Kept, TaskTotal
from otel_celery_memory.reporter.task_facts import TasksKnown, found_sites
from otel_celery_memory.settings import Settings
from otel_celery_memory.telemetry.events import RankedSite

logger = logging.getLogger(__name__)

_CONFIRM_AGAIN_S = (150.0, 300.0, 600.0)
"""A suspicion of which no holder is found orders a census again after those times, the last one
again and again: on a busy machine the first census may have been too short."""
_TASKS = 200
_LATELY_STEPS, _LATELY_SHARE = 24, 0.2
"""Growth of the last two minutes, as a share of what it was, that is still some."""
_CENSUS_S = 120.0
"""A census is over after that time at the latest, and another can be ordered."""
_CONFIRMED_KINDS = (Kind.PYTHON, Kind.NATIVE, Kind.GARBAGE, Kind.FILE_DESCRIPTORS, Kind.THREADS)
"""Of which a Python object may be what holds them."""
_LOST_IN_GARBAGE = (
    "samples of its runs and the lowest levels of the heaps agree; it may still be a cache"
)
MIB = 1 << 20
_HELD_OBJECTS_SHARE, _HELD_GROWTH_SHARE = 0.75, 0.5
"""Growth is held by names if tasks explain so much of it, of whose objects so many are held."""
_STAYS_SHARE, _KEPT_SHARE = 0.4, 0.25
"""So much of what samples say that runs keep has to stay, and to be of what grows."""


_RULES = {
    Resource.HEAP: GrowthRules(),
    # At most one a minute: so many fewer steps are in a day.
    Resource.FLOOR: GrowthRules(collectable=False, suspected_e=30.0, leaking_e=1.2e7),
    Resource.OTHER: GrowthRules(kind=Kind.MAPPING, collectable=False, least_grown=4 * MIB),
    Resource.MALLOC_FREE: GrowthRules(
        kind=Kind.FRAGMENTATION, collectable=False, least_grown=16 * MIB
    ),
    # A child copies all of what it inherited once, with its first full collection.
    Resource.COPIED: GrowthRules(
        kind=Kind.COPY_ON_WRITE, collectable=False, least_grown_each=32 * MIB
    ),
    Resource.DESCENDANTS: GrowthRules(kind=Kind.PROCESSES, collectable=False, least_grown=4 * MIB),
    Resource.MAIN: GrowthRules(collectable=False, least_grown=4 * MIB),
    Resource.OPEN_FILES: counted_rules(Kind.FILE_DESCRIPTORS),
    Resource.THREADS: counted_rules(Kind.THREADS),
    Resource.MESSAGES: counted_rules(Kind.MESSAGES, cache=1_000.0),
}
"""What is read in ``/proc`` is noisier than a heap's level after a collection."""


@dataclass(frozen=True)
class _Ordered:
    """Censuses of one task: when the last one was ordered, and how many were."""

    at_s: float
    times: int

    @property
    def again_s(self) -> float:
        """After that time another one may be."""
        return _CONFIRM_AGAIN_S[min(self.times, len(_CONFIRM_AGAIN_S)) - 1]


@dataclass(frozen=True)
class Pace:
    """How long a step is, and for how long a process must have been at work to be judged."""

    step_s: float = 5.0
    warm_up_s: float = WARM_UP_S

    @classmethod
    def of(cls, settings: Settings) -> Pace:
        """Faster where sites are told more often, or workers warm up faster, as in a demo."""
        step_s = min(max(settings.sites_interval / 12, 0.5), 5.0)
        return cls(step_s, min(settings.warm_up / 2, WARM_UP_S))


def _detectors() -> dict[Resource, GrowthDetector]:
    return {resource: GrowthDetector(rules) for resource, rules in _RULES.items()}


class LeakWatch:
    """Draws the verdicts of one worker; called by one thread at a time."""

    def __init__(
        self,
        emitter: Emitter,
        sites: Callable[[], Sequence[RankedSite]],
        confirm: Callable[[str], None] = lambda task: None,
        pace: Pace | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """``sites`` gives the ranking as it is now; ``confirm`` orders a census of a task."""
        self._pace = pace or Pace()
        self._emitter = emitter
        self._sites = sites
        self._confirm = confirm
        self._wall_s = wall_s
        self._levels = LevelSteps(SMALL_BLOCK_BYTES, self._pace.warm_up_s)
        self._tasks = TasksKnown()
        self._detectors = _detectors()
        self._lately: dict[Resource, deque[float]] = {}
        """By how much each resource has changed in each of the last steps."""
        self._explained_s: dict[Resource, float] = {}
        """When somebody was last known to make it grow, or it did not."""
        self._held: frozenset[Resource] = frozenset()
        """What grows by objects of which names are known that hold them."""
        self._lowest = LowestLevels()
        self._found: dict[Resource, Growing] = {}
        self._growing: tuple[Growing, ...] = ()
        self._verdicts = StandingVerdicts()
        self._due_s = wall_s() + self._pace.step_s
        self._censuses: dict[str, _Ordered] = {}
        """The censuses that were ordered, by task."""
        emitter.census_taken = self._tasks.census

    def apply(self, record: Record) -> None:
        """Takes one record of the worker's processes, after the emitter has."""
        if isinstance(record, TaskFinished):
            self._tasks.finished(self._emitter.bounded_task(record.task), record)
            self._levels.finished(record)
        elif isinstance(record, RunRetained):
            task = self._emitter.bounded_task(record.task)
            warm_up = self._emitter.tasks.warms_up(record.time_ns)
            self._tasks.retained(task, record, warm_up=warm_up)
            self._levels.retained(record)
        elif isinstance(record, FloorMeasured):
            self._levels.floor(record)
        elif isinstance(record, HeapSampled):
            self._levels.heap(record)
        # Most of the time nothing grows, and this is asked of each run.
        if self._growing and isinstance(record, (TaskStarted, TaskFinished)):
            self._retained_rss(record)

    def process_gone(self, pid: int) -> None:
        """A process has ended."""
        self._levels.gone(pid)

    def tick(self) -> None:
        """Ends a step if it is over, and emits the verdicts that have changed."""
        now_s = self._wall_s()
        if self._due_s - self._pace.step_s <= now_s < self._due_s:
            return
        self._due_s = now_s + self._pace.step_s
        self._read_processes(now_s)
        counts = not self._emitter.tasks.warms_up(int(now_s * 1e9))
        self._growing = self._grow(self._levels.step(now_s, counts=counts), now_s)
        concluded = self._conclude(now_s) if self._growing else ()
        self._held = _held_by_names(concluded)
        drawn = tuple(verdict for _, verdict in concluded)
        for verdict in self._verdicts.update(drawn, now_s):
            self._emitter.emit_leak(verdict, int(now_s * 1e9))
        self._emitter.leaks = self._verdicts.all
        self._order_census(drawn, now_s)

    def state(self) -> dict[str, Any]:
        """What is worth keeping of the evidence, for JSON: of what grows, and of the heaps."""
        growing = {Resource.HEAP, *self._found}
        return {
            "growth": {each.value: self._detectors[each].state() for each in sorted(growing)},
            "tasks": self._tasks.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up the evidence of a reporter before this one; what cannot be read is left."""
        if not state:
            return
        try:
            for name, kept in state["growth"].items():
                detector = GrowthDetector(_RULES[Resource(name)])
                detector.restore(kept)
                self._detectors[Resource(name)] = detector
            self._tasks.restore(state["tasks"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            logger.warning("the evidence of the reporter before is not used: %r", error)

    def clear(self) -> None:
        """Starts again at nothing, after a fork."""
        self._levels.clear()
        self._tasks.clear()
        self._verdicts.clear()
        self._growing = ()
        self._held = frozenset()
        self._found.clear()
        self._lowest.clear()
        self._lately.clear()
        self._explained_s.clear()
        self._detectors = _detectors()

    def _grow(self, changes: Mapping[Resource, Change], now_s: float) -> tuple[Growing, ...]:
        """What grows. A resource that was not compared in this step goes on as it did."""
        for resource, change in changes.items():
            growing = self._grown(resource, change, now_s)
            if growing is not None:
                self._found[resource] = growing
            else:
                self._found.pop(resource, None)
                self._explained_s.pop(resource, None)
        found = dict(self._found)
        # Garbage that comes and goes hides a leak from one, the other takes minutes.
        floor = found.pop(Resource.FLOOR, None)
        if floor is not None and Resource.HEAP not in found:
            found[Resource.HEAP] = replace(floor, resource=Resource.HEAP)
        if Resource.HEAP in changes:
            self._lowest.add(now_s, changes[Resource.HEAP].grown)
        if Resource.HEAP not in found and (seen := self._seen_in_samples(now_s)) is not None:
            found[Resource.HEAP] = seen
        return tuple(found.values())

    def _seen_in_samples(self, now_s: float) -> Growing | None:
        """Growth that is lost in garbage, where samples say who keeps it and it is not freed."""
        risen = self._lowest.risen()
        if risen is None or risen.grown < _RULES[Resource.HEAP].least_grown:
            return None
        kept = self._tasks.kept(risen.grown, risen.since_s)
        kept_bytes = sum(each.amount for each in kept.shares)
        if (
            not kept_bytes
            or not _STAYS_SHARE * kept_bytes <= risen.grown <= kept_bytes / _KEPT_SHARE
        ):
            return None
        rate = risen.grown / max(now_s - risen.since_s, 1.0)
        return Growing(
            Resource.HEAP,
            State.SUSPECTED,
            risen.since_s,
            risen.grown,
            Interval(rate, rate / 2, rate * 2),
            None,
            sum(self._tasks.runs.since(risen.since_s).values()),
            max(len(self._emitter.state.processes) - 1, 1),
            (_LOST_IN_GARBAGE,),
            unexplained_s=0.0,
        )

    def _grown(self, resource: Resource, change: Change, now_s: float) -> Growing | None:
        step = Step(
            now_s,
            change.grown,
            change.runs,
            change.age_s,
            change.floor,
            change.garbage,
            change.processes,
            held=resource in self._held,
        )
        found = self._detectors[resource].add(step, self._limit_bytes())
        lately = self._lately.setdefault(resource, deque(maxlen=_LATELY_STEPS))
        lately.append(change.grown)
        if found.state not in (State.SUSPECTED, State.LEAKING):
            return None
        grows = _grows(lately, found.rate_per_s, self._pace.step_s)
        return Growing(
            resource,
            found.state,
            found.since_s,
            found.grown,
            found.rate_per_s or Interval(0.0, 0.0, 0.0),
            found.rate,
            found.runs,
            change.processes,
            found.reasons,
            self._unexplained_s(resource, grows, now_s),
        )

    def _conclude(self, now_s: float) -> tuple[tuple[Growing, Verdict], ...]:
        totals = {name: (total, kept) for name, total, kept in self._emitter.tasks.largest(_TASKS)}
        outlook = self._outlook(total for total, _ in totals.values())
        drawn = conclude(self._evidence(now_s, totals))
        explained = {growing.resource for growing, verdict in drawn if verdict.task}
        if Resource.HEAP in explained:
            explained.add(Resource.FLOOR)
        self._explained_s |= dict.fromkeys(explained, now_s)
        return tuple((growing, outlook.applied_to(verdict, growing)) for growing, verdict in drawn)

    def _outlook(self, totals: Iterable[TaskTotal]) -> Outlook:
        context, state = self._emitter.context, self._emitter.state
        running = [each for each in state.processes.values() if each.gone_ns is None]
        return Outlook(
            context.limits_used(),
            {each.pid: each.slot for each in running if each.slot is not None},
            {each.pid: each.rss_bytes for each in running if each.rss_bytes},
            max((total.peak_bytes or 0 for total in totals), default=0),
            max((each.started_bytes or 0 for each in running), default=0),
        )

    def _unexplained_s(self, resource: Resource, grows: bool, now_s: float) -> float:
        explained_s = self._explained_s.setdefault(resource, now_s)
        if not grows or explained_s > now_s:
            self._explained_s[resource] = now_s
        return max(now_s - explained_s, 0.0)

    def _evidence(
        self, now_s: float, totals: Mapping[str, tuple[TaskTotal, Kept | None]]
    ) -> Evidence:
        sites = self._sites()
        left: Counter[str] = Counter()
        for size in self._emitter.context.descendants():
            if size.left and size.task:
                left[size.task] += size.rss_bytes or 0
        return Evidence(
            now_s,
            self._growing,
            self._tasks.facts(self._growing, totals, sites),
            found_sites(sites, ""),
            tuple(left.items()),
        )

    def _read_processes(self, now_s: float) -> None:
        context, state = self._emitter.context, self._emitter.state
        readings = context.processes()
        left = Counter[str]()
        for size in context.descendants():
            left[size.slot] += (size.rss_bytes or 0) if size.left else 0
        for process in list(state.processes.values()):
            reading = readings.get(slot_name(process.slot))
            if reading is None or process.gone_ns is not None:
                continue
            levels: dict[Resource, float | None] = {
                Resource.OPEN_FILES: reading.open_files,
                Resource.THREADS: reading.threads,
                Resource.COPIED: reading.copied_bytes,
                Resource.DESCENDANTS: left.get(slot_name(process.slot), 0),
            }
            if process.slot == MAIN_SLOT and process.tasks == 0:
                levels[Resource.MAIN] = reading.rss_bytes
                levels[Resource.MESSAGES] = _messages(state.messages)
            self._levels.read(process.pid, now_s, levels, reading.rss_bytes)

    def _retained_rss(self, record: TaskStarted | TaskFinished) -> None:
        if record.retained_bytes is not None and self._is_growing(Resource.OTHER):
            task = self._emitter.bounded_task(record.previous_task)
            if not self._emitter.state.is_first_run(record.pid, task):
                self._tasks.retained_rss(task, record.retained_bytes)

    def _is_growing(self, resource: Resource) -> bool:
        return any(each.resource == resource for each in self._growing)

    def _limit_bytes(self) -> float | None:
        """The least of the worker's limits, of all its processes together."""
        of_worker = [u.limit_bytes for u in self._emitter.context.limits_used() if u.pid is None]
        return min(of_worker, default=None)

    def _order_census(self, drawn: Sequence[Verdict], now_s: float) -> None:
        """Of the first task that is suspected and of which it is not known what holds its objects.

        One at a time, and of a task after longer and longer times.
        """
        for verdict in drawn:
            if verdict.task and verdict.holder is None and verdict.kind in _CONFIRMED_KINDS:
                last = self._censuses.get(verdict.task)
                if last is not None and 0 <= now_s - last.at_s < last.again_s:
                    continue
                if any(0 <= now_s - each.at_s < _CENSUS_S for each in self._censuses.values()):
                    return
                times = 1 if last is None else last.times + 1
                self._censuses[verdict.task] = _Ordered(now_s, times)
                self._confirm(verdict.task)
                return


def _held_by_names(concluded: Iterable[tuple[Growing, Verdict]]) -> frozenset[Resource]:
    """Of which resources the growth is reachable, and so no garbage."""
    held: dict[Resource, float] = {}
    for growing, verdict in concluded:
        if verdict.holder is not None and verdict.holder.share >= _HELD_OBJECTS_SHARE:
            before = held.get(growing.resource, 0.0)
            held[growing.resource] = before + (verdict.explained or 0.0)
    return frozenset(each for each, share in held.items() if share >= _HELD_GROWTH_SHARE)


def _grows(lately: Sequence[float], rate_per_s: Interval | None, step_s: float) -> bool:
    """Whether it still grows at a good part of its rate."""
    before = 0.0 if rate_per_s is None else rate_per_s.middle
    return sum(lately) > _LATELY_SHARE * before * step_s * len(lately)


def _messages(held: MessagesHeld | None) -> float | None:
    return None if held is None else float(held.reserved + (held.scheduled or 0) + held.revoked)
