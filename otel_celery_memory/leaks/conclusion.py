"""From evidence to verdicts: who makes grow what grows, of what kind it is, where it is allocated.

Three questions, in this order. *Does it grow?* is answered for each resource of the worker before
(`Growing`). *Who does it?* is answered by what sampled runs of each task keep (`TaskFacts`); what
the tasks do not explain stays nobody's. *Where?* is answered by sites and by the census.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from otel_celery_memory.leaks.resource import KINDS, Resource
from otel_celery_memory.leaks.verdict import Holder, Interval, Kind, Place, State, Verdict, Where

_LEAST_SHARE = 0.1
"""Of the growth: who does less of it is not named for it."""
_LEAST_SHARE_OF_LINES = 0.25
"""The same where a line alone says so."""
_LEAST_S_OF_NOBODY = 180.0
"""Growth that no task explains is told after that time."""
_NATIVE_SHARE, _NATIVE_TRACED_RUNS, _NATIVE_BLOCKS = 0.1, 5, 0.5
"""Memory is native where sites show less than this share of it in so many traced runs, and a run
leaves fewer blocks of the interpreter behind than that."""
_ALIKE_FACTOR = 2.0
"""A receiver that keeps as much as a task does, within this factor, explains what it keeps."""


@dataclass(frozen=True)
class Growing:
    """A resource of the worker's processes that grows, or has grown.

    ``rate_per_s`` is of all processes together, ``grown`` what has come since ``since_s``.
    """

    resource: Resource
    state: State
    since_s: float
    grown: float
    rate_per_s: Interval
    per_run: Interval | None
    runs: int
    processes: int
    reasons: tuple[str, ...] = ()
    unexplained_s: float = math.inf
    """How long it has gone on while no task was known to do it."""


@dataclass(frozen=True)
class FoundSite:
    """A line that left memory behind in traced runs: so many bytes a run, on the mean."""

    place: Place
    where: str
    bytes_per_run: float
    of_library: bool = False
    """Whether no line of the user's led to it."""


@dataclass(frozen=True)
class TaskFacts:
    """What is known of one task while something grows.

    ``runs`` is how many there were meanwhile. ``retained`` is what a run keeps in bytes, ``None``
    where that is not known or not told from nothing. ``things`` are descriptors and threads a run.
    """

    name: str
    runs: int
    retained: Interval | None
    blocks_per_run: float = 0.0
    things: tuple[tuple[Resource, float], ...] = ()
    other: Interval | None = None
    """What a run keeps of memory that no allocator accounts for."""
    condition: str = ""
    if_so: Interval | None = None
    """What a run keeps that meets the condition."""
    traced_runs: int = 0
    overlaps: bool = False
    """Whether its runs overlap with others in their process, so that none can be sampled."""
    collects: bool = True
    """Whether the collector may run in its processes."""
    sites: tuple[FoundSite, ...] = ()
    holder: Holder | None = None
    is_surely: bool = True
    """Whether the evidence against it holds however often one looked."""


@dataclass(frozen=True)
class Evidence:
    """All that the verdicts of a worker are drawn from, at one moment."""

    now_s: float
    growing: tuple[Growing, ...] = ()
    tasks: tuple[TaskFacts, ...] = ()
    sites: tuple[FoundSite, ...] = ()
    """Of no task: receivers, and code that runs between tasks."""
    left_by: tuple[tuple[str, float], ...] = ()
    """Tasks whose processes are left behind, with the bytes of these."""


def conclude(evidence: Evidence) -> tuple[tuple[Growing, Verdict], ...]:
    """The verdicts, each with the growth that it is on; of a resource the largest leak first."""
    of_things = [
        (growing, verdict)
        for growing in evidence.growing
        if growing.resource != Resource.HEAP
        for verdict in _CONCLUDING.get(growing.resource, _of_processes)(growing, evidence)
    ]
    # A thread keeps its stack and its arguments: that is the same leak.
    told = {
        verdict.task
        for growing, verdict in of_things
        if verdict.task and growing.resource in (Resource.OPEN_FILES, Resource.THREADS)
    }
    of_heap = [
        (growing, verdict)
        for growing in evidence.growing
        if growing.resource == Resource.HEAP
        for verdict in _of_heap(growing, evidence)
        if verdict.task not in told
    ]
    return (*of_things, *of_heap)


def _of_processes(growing: Growing, evidence: Evidence) -> list[Verdict]:
    return [_verdict(growing, evidence, Where.IDLE)]


def _of_main(growing: Growing, evidence: Evidence) -> list[Verdict]:
    """Messages are told as such, and not as memory once more."""
    by_messages = any(each.resource == Resource.MESSAGES for each in evidence.growing)
    if growing.resource == Resource.MAIN and by_messages:
        return []
    return [_verdict(growing, evidence, Where.MAIN)]


def _of_heap(growing: Growing, evidence: Evidence) -> list[Verdict]:
    tasks = [task for task in evidence.tasks if task.retained is not None and task.runs]
    receiver = _receiver(evidence.sites, tasks)
    if receiver is not None:
        rest = [task for task in tasks if not _is_explained_by(receiver, task)]
        runs = sum(task.runs for task in tasks)
        share = receiver.bytes_per_run * runs / max(growing.grown, 1.0)
        verdicts = [
            replace(
                _verdict(growing, evidence, Where.RECEIVER, explained=min(share, 1.0)),
                rate=_about(receiver.bytes_per_run, growing.per_run),
                place=replace(receiver.place, share=min(receiver.place.share, 1.0)),
            )
        ]
        return verdicts + _of_tasks(growing, evidence, rest, share)
    verdicts = _of_tasks(growing, evidence, tasks, 0.0)
    if not verdicts:
        verdicts = _of_lines(growing, evidence)
    # Samples of who does it may be yet to come.
    if verdicts or growing.unexplained_s < _LEAST_S_OF_NOBODY:
        return verdicts
    idle = next((site for site in evidence.sites if site.where == "idle"), None)
    where = Where.TASK if idle is None else Where.IDLE
    nobodys = _verdict(growing, evidence, where)
    return [replace(nobodys, place=None if idle is None else idle.place)]


def _of_lines(growing: Growing, evidence: Evidence) -> list[Verdict]:
    """Where runs overlap nobody knows what one of them keeps: lines say whose growth it is."""
    by_lines = [
        (task, site, site.bytes_per_run * task.runs / max(growing.grown, 1.0))
        for task in evidence.tasks
        for site in task.sites[:1]
        if task.overlaps and task.retained is None
    ]
    found = [each for each in by_lines if each[2] >= _LEAST_SHARE_OF_LINES]
    return [
        replace(
            _verdict(growing, evidence, Where.TASK, task, explained=min(share, 1.0)),
            state=State.SUSPECTED,
            reasons=("its runs overlap, so that its lines alone speak against it",),
            kind=_kind_of(task),
            rate=Interval(site.bytes_per_run, 0.0, 2 * site.bytes_per_run),
            runs=task.runs,
            place=site.place,
            holder=task.holder,
        )
        for task, site, share in sorted(found, key=lambda each: -each[2])
    ]


def _of_tasks(
    growing: Growing, evidence: Evidence, tasks: Sequence[TaskFacts], explained: float
) -> list[Verdict]:
    """A verdict for each task that explains a share of the growth worth its name."""
    kept = {
        task.name: max(task.retained.middle, 0.0) * task.runs for task in tasks if task.retained
    }
    # What tasks keep may add up to more than the heaps have grown by: a sample is a sample.
    whole = max(growing.grown, sum(kept.values()) + explained * growing.grown, 1.0)
    found = []
    for task in sorted(tasks, key=lambda task: -kept[task.name]):
        share = kept[task.name] / whole
        if share < _LEAST_SHARE or task.retained is None:
            continue
        verdict = _verdict(growing, evidence, Where.TASK, task, explained=share)
        state = verdict.state
        reasons = verdict.reasons
        if state == State.LEAKING and not task.is_surely:
            state, reasons = State.SUSPECTED, ("it is not sure yet that it is this task",)
        site = _telling(task.sites, task.retained)
        found.append(
            replace(
                verdict,
                state=state,
                reasons=reasons,
                kind=_kind_of(task),
                rate=task.if_so if task.condition and task.if_so else task.retained,
                runs=task.runs,
                condition=task.condition,
                place=None if site is None else _shared(site, task.retained),
                holder=task.holder,
            )
        )
    return found


def _kind_of(task: TaskFacts) -> Kind:
    retained = task.retained.middle if task.retained else 0.0
    found = sum(site.bytes_per_run for site in task.sites)
    is_seen = found >= _NATIVE_SHARE * retained or task.blocks_per_run >= _NATIVE_BLOCKS
    if not task.collects and (task.holder is None or not task.holder.chain):
        return Kind.GARBAGE if is_seen else Kind.NATIVE
    if task.holder is not None and task.holder.chain:
        return Kind.PYTHON
    if not is_seen and task.traced_runs >= _NATIVE_TRACED_RUNS:
        return Kind.NATIVE
    return Kind.PYTHON


def _telling(sites: Sequence[FoundSite], retained: Interval) -> FoundSite | None:
    """The first site, but for lines of libraries that explain next to nothing of what is kept."""
    least = _LEAST_SHARE * retained.middle
    return next(
        (site for site in sites if not site.of_library or site.bytes_per_run >= least), None
    )


def _shared(site: FoundSite, retained: Interval) -> Place:
    share = site.bytes_per_run / retained.middle if retained.middle > 0 else 0.0
    return replace(site.place, share=min(max(share, 0.0), 1.0))


def _receiver(sites: Iterable[FoundSite], tasks: Sequence[TaskFacts]) -> FoundSite | None:
    """The receiver that explains what some task keeps, if there is one."""
    return next(
        (
            site
            for site in sites
            if site.where == "receiver" and any(_is_explained_by(site, task) for task in tasks)
        ),
        None,
    )


def _is_explained_by(receiver: FoundSite, task: TaskFacts) -> bool:
    own = sum(site.bytes_per_run for site in task.sites if site.where == "task")
    retained = task.retained.middle if task.retained else 0.0
    return own < receiver.bytes_per_run and retained <= _ALIKE_FACTOR * receiver.bytes_per_run


def _of_counted(growing: Growing, evidence: Evidence) -> list[Verdict]:
    counts = {task.name: max(_per_run(task, growing), 0.0) * task.runs for task in evidence.tasks}
    whole = max(growing.grown, sum(counts.values()), 1.0)
    rates = [_per_run(task, growing) for task in evidence.tasks if counts[task.name] > 0]
    if len(rates) > 1 and min(rates) * _ALIKE_FACTOR >= max(rates):
        # Whatever runs keeps as many: that is done by what runs with each of them.
        return [_counted_by_receiver(growing, evidence, sum(rates) / len(rates))]
    found = []
    for task in sorted(evidence.tasks, key=lambda task: -counts[task.name]):
        share = counts[task.name] / whole
        if share < _LEAST_SHARE:
            continue
        site = task.sites[0] if task.sites else None
        found.append(
            replace(
                _verdict(growing, evidence, Where.TASK, task, explained=share),
                rate=_about(_per_run(task, growing), growing.per_run),
                runs=task.runs,
                place=None if site is None else site.place,
                holder=task.holder,
                condition=task.condition,
            )
        )
    # Samples of who does it may be yet to come.
    if found or growing.unexplained_s < _LEAST_S_OF_NOBODY:
        return found
    return [_verdict(growing, evidence, Where.IDLE)]


def _per_run(task: TaskFacts, growing: Growing) -> float:
    return dict(task.things).get(growing.resource, 0.0)


def _counted_by_receiver(growing: Growing, evidence: Evidence, per_run: float) -> Verdict:
    site = next((site for site in evidence.sites if site.where == "receiver"), None)
    return replace(
        _verdict(growing, evidence, Where.RECEIVER),
        rate=_about(per_run, growing.per_run),
        place=None if site is None else site.place,
    )


def _of_other(growing: Growing, evidence: Evidence) -> list[Verdict]:
    tasks = [replace(task, retained=task.other, sites=()) for task in evidence.tasks if task.other]
    found = _of_tasks(growing, evidence, tasks, 0.0)
    return [replace(each, kind=Kind.MAPPING) for each in found] or [
        _verdict(growing, evidence, Where.TASK)
    ]


def _of_descendants(growing: Growing, evidence: Evidence) -> list[Verdict]:
    sizes = dict(evidence.left_by)
    whole = sum(sizes.values())
    if not whole:
        return [_verdict(growing, evidence, Where.DESCENDANT)]
    runs = {task.name: task.runs for task in evidence.tasks}
    return [
        replace(
            _verdict(growing, evidence, Where.DESCENDANT, explained=size / whole),
            task=name,
            runs=runs.get(name, growing.runs),
            rate_per_s=growing.rate_per_s.middle * size / whole,
        )
        for name, size in sorted(sizes.items(), key=lambda pair: -pair[1])
        if size >= _LEAST_SHARE * whole
    ]


_CONCLUDING = {
    Resource.OPEN_FILES: _of_counted,
    Resource.THREADS: _of_counted,
    Resource.OTHER: _of_other,
    Resource.DESCENDANTS: _of_descendants,
    Resource.MAIN: _of_main,
    Resource.MESSAGES: _of_main,
}


def _verdict(
    growing: Growing,
    evidence: Evidence,
    where: Where,
    task: TaskFacts | None = None,
    explained: float | None = None,
) -> Verdict:
    share = 1.0 if explained is None else explained
    return Verdict(
        state=growing.state,
        kind=KINDS[growing.resource],
        where=where,
        task="" if task is None else task.name,
        rate=None,
        rate_per_s=growing.rate_per_s.middle * share,
        runs=growing.runs,
        processes=growing.processes,
        since_s=growing.since_s,
        now_s=evidence.now_s,
        grown=growing.grown * share,
        explained=explained,
        reasons=growing.reasons,
    )


def _about(middle: float, per_run: Interval | None) -> Interval:
    """An interval around a mean that is as wide, in proportion, as that of the growth."""
    if per_run is None or per_run.middle <= 0:
        return Interval(middle, 0.0, 2 * middle)
    low, high = per_run.low / per_run.middle, per_run.high / per_run.middle
    return Interval(middle, middle * max(low, 0.0), middle * high)
