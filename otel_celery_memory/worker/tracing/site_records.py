"""Records of a window of allocation tracing: its largest sites, each with its owner."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import CodeType

import celery
import celery.app.trace

from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.records import (
    SHARED_NAME,
    UNLIKE_LEAST_BYTES,
    Record,
    Site,
    SitesWindow,
    WindowKind,
)
from otel_celery_memory.probes.allocators import SMALL_BLOCK_MAX_BYTES
from otel_celery_memory.probes.sites import (
    Frames,
    LiveSites,
    SiteDelta,
    SiteFilter,
    changed_sites,
    owned_sites,
)
from otel_celery_memory.worker.tracing.traced_window import ALL, Found, Left

SITES_PER_WINDOW = 40
SITES_PER_CAPTURE = 500
"""Those of eight children at once are some 750 KiB together."""
_NAMES_MAX = 200
_DECORATORS_MAX = 10
_HANDLERS = ("__call__", "before_start", "on_success", "on_retry", "on_failure", "after_return")
"""What Celery calls for a task, beside its function."""
_FEW_RUNS = 4
"""Of fewer, one of which raised, a little is no growth: `_is_of_what_was_raised`."""
_DEEP_BLOCKS = 4
"""Growth at a library's line that is worth deeper stacks."""
_LIKELY_SHARE = 0.9
_ENLARGED_SHARE = 0.1
"""A container that is full is enlarged by an eighth, and all of it is new to ``tracemalloc``."""
_POOL_CODE = ("/billiard/pool.py", "/celery/concurrency/asynpool.py")
_TRACER_CODE = celery.app.trace.__file__


def left_alive(sites: LiveSites, chosen: SiteFilter) -> list[SiteDelta]:
    """The sites of what was allocated since tracing began and is alive."""
    return changed_sites({}, sites, chosen)


class TaskCode:
    """Where the functions of tasks are: a stack that contains one says whose run it was.

    What Celery calls for a task beside it, as ``after_return``, is the task's too, where it is not
    Celery's own. Functions that several tasks have in common say nothing, unless one of them ran.
    """

    def __init__(self, chosen: SiteFilter) -> None:
        self._chosen = chosen
        self._known: set[str] = set()
        self._owners: dict[CodeType, set[str]] = {}
        self._functions: dict[str, list[tuple[int, int, set[str]]]] = {}

    def add(self, name: str, task: object) -> None:
        """Learn where the functions of this task are."""
        if name in self._known or len(self._known) >= _NAMES_MAX:
            return
        self._known.add(name)
        for attribute in ("run", "_orig_run"):  # automatic retries replace the first
            function = getattr(task, attribute, None)
            for _ in range(_DECORATORS_MAX):
                code = getattr(function, "__code__", None)
                if code is not None:
                    self._chosen.own_package(code.co_filename)
                    self._add_function(name, code)
                function = getattr(function, "__wrapped__", None)
        for attribute in _HANDLERS:
            handler = getattr(type(task), attribute, None)
            code = getattr(handler, "__code__", None)
            if code is not None and handler is not getattr(celery.Task, attribute, None):
                self._add_function(name, code)

    def task_of(self, frames: Frames, ran: Collection[str] = ()) -> str | None:
        """The task whose function is on this stack; of several, the only one of those that ran."""
        for path, line in frames:
            for first, last, owners in self._functions.get(path, ()):
                if first <= line <= last:
                    found = owners.intersection(ran) or owners
                    return next(iter(found)) if len(found) == 1 else None
        return None

    def _add_function(self, name: str, code: CodeType) -> None:
        owners = self._owners.get(code)
        if owners is None:
            owners = self._owners[code] = set()
            lines = [line for _, _, line in code.co_lines() if line is not None]
            self._functions.setdefault(code.co_filename, []).append(
                (code.co_firstlineno, max(lines, default=code.co_firstlineno), owners)
            )
        owners.add(name)


def found_records(
    pid: int,
    found: Found,
    chosen: SiteFilter,
    code: TaskCode,
    capture: Commands | None,
    *,
    shared: bool,
    with_exception: bool,
    may_be_deeper: bool = False,
) -> tuple[list[Record], bool]:
    """Records of a window; and whether deeper stacks would name the user's line.

    Where they would, and ``may_be_deeper``, lines of libraries are left to the next window: what
    they have may be the user's line's, which would be told beside them. ``shared``: tasks
    overlapped in it. The exception of a single run that raised
    (``with_exception``) is alive with all its frames until the collector runs. It is larger than
    most leaks, and the run has not retained it.
    """
    number = capture.capture if capture else 0
    names = list(found.runs)
    if found.grown:
        rows = _rows(found, chosen, code)
        deep = _is_too_shallow(rows, chosen, shared=shared)
        if deep and may_be_deeper and not shared:
            rows = {
                (task, where): [
                    delta
                    for delta in deltas
                    if where in ("receiver", "idle") or not delta.of_library
                ]
                for (task, where), deltas in rows.items()
            }
        records: list[Record] = []
        for task in {*names, *(task for task, _ in rows)}:
            own = {where: deltas for (name, where), deltas in rows.items() if name == task}
            runs = found.runs.get(task) or max(sum(found.runs.values()), 1)
            records += window_records(pid, WindowKind.COMPLETE, task, own, runs=runs)
        return records, deep
    task = names[0] if len(names) == 1 and not shared else SHARED_NAME
    whole = found.whole and task != SHARED_NAME and not with_exception
    kind = WindowKind.PARTIAL
    if whole:
        kind = WindowKind.COMPLETE if capture else WindowKind.FIRST_RUN
    sites = {"": left_alive(found.sites, chosen)}
    aborted = found.aborted
    return window_records(pid, kind, task, sites, aborted=aborted, capture=number), False


def _is_too_shallow(
    rows: Mapping[tuple[str, str], Sequence[SiteDelta]], chosen: SiteFilter, *, shared: bool
) -> bool:
    """Whether what grows is at lines of libraries. Where runs overlap, those of the process itself
    are among them: there what the user's lines have is enough."""
    grown = [delta for deltas in rows.values() for delta in deltas if delta.blocks >= _DEEP_BLOCKS]
    of_user = [chosen.is_of_user(delta.path) for delta in grown]
    return not all(of_user) and not (shared and any(of_user))


def _rows(
    found: Found, chosen: SiteFilter, code: TaskCode
) -> dict[tuple[str, str], list[SiteDelta]]:
    """What has grown, by task and kind of code, within what each has left behind."""
    changes: dict[tuple[str, str], LiveSites] = {}
    only = next(iter(found.runs)) if len(found.runs) == 1 else None
    likely = _likely(found)
    for frames, seen in found.sites.items():
        task = code.task_of(frames, found.runs)
        change = _without_in_flight(found, frames, task or ALL, seen)
        where = "task"
        if task is None:
            if not found.each_ran_before:
                continue
            where = _code_outside(frames, chosen)
            of_user = any(chosen.is_of_user(path) for path, _ in frames)
            # Whose a stack is that ends before the code that called, nobody knows.
            task = "" if where else only or (likely if of_user else "")
            if (not of_user or where == "idle") and found.steady is not None:
                # A library's own tables change now and then, and a thread that ends a little later
                # than its run holds what it works at: what leaks, does so all the time.
                if frames not in found.steady:
                    continue
                change = min(change, found.steady[frames])
        changes.setdefault((task, where), {})[frames] = change
    rows = {key: owned_sites(sites, chosen) for key, sites in changes.items()}
    claims: dict[str, _Claim] = {}
    for (task, _), deltas in rows.items():
        for key in {task, ALL}:
            claims.setdefault(key, _Claim()).add(deltas)
    scaled = {
        (task, where): [claims[key].scaled(delta, found.left_by.get(key)) for delta in deltas]
        for (task, where), deltas in rows.items()
        for key in [task if task in found.left_by else ALL]
    }
    return {
        (task, where): [delta for delta in deltas if not _is_of_what_was_raised(found, task, delta)]
        for (task, where), deltas in scaled.items()
    }


def _is_of_what_was_raised(found: Found, task: str, delta: SiteDelta) -> bool:
    """Whether it may be what exceptions hold: frames in a circle, until a full collection; and so
    little of so few runs is what Celery keeps of one until the next, not always as much."""
    if task not in found.raised:
        return False
    runs = found.runs.get(task, 0)
    is_little = delta.size_bytes < UNLIKE_LEAST_BYTES * runs
    return found.may_be_garbage or (runs < _FEW_RUNS and is_little)


def _without_in_flight(
    found: Found, frames: Frames, task: str, change: tuple[int, int]
) -> tuple[int, int]:
    """The growth of a stack, less what only runs hold that have not ended."""
    in_flight = found.in_flight.get(task)
    if in_flight is None or change[1] <= 0:
        return change
    size, blocks = in_flight.held(found.alive.get(frames, (0, 0)))
    return (max(change[0] - size, 0), max(change[1] - blocks, 0))


class _Claim:
    """What sites claim to have grown, by the allocator that has it."""

    def __init__(self) -> None:
        self._blocks = self._malloc_bytes = 0

    def add(self, deltas: list[SiteDelta]) -> None:
        """Add the growth of these sites."""
        for delta in deltas:
            if delta.size_bytes > 0 and _is_large(delta):
                self._malloc_bytes += delta.size_bytes
            elif delta.blocks > 0:
                self._blocks += delta.blocks

    def scaled(self, delta: SiteDelta, left: Left | None) -> SiteDelta:
        """One of them within what was left behind: the rest replaced what was there before."""
        if left is None or (delta.size_bytes <= 0 and delta.blocks <= 0):
            return delta
        share = 1.0
        if not _is_large(delta):
            share = left.blocks / max(self._blocks, 1)
        elif left.malloc_bytes is not None:
            share = left.malloc_bytes / max(self._malloc_bytes, 1)
        if share >= 1.0:
            return delta
        size_bytes, blocks = round(delta.size_bytes * share), round(delta.blocks * share)
        if share >= _ENLARGED_SHARE and size_bytes >= SMALL_BLOCK_MAX_BYTES:
            blocks = max(blocks, 1)  # a buffer that was moved to be enlarged
        return replace(delta, size_bytes=size_bytes, blocks=blocks)


def _is_large(delta: SiteDelta) -> bool:
    """Whether its blocks are malloc's, rather than of the interpreter's own allocator."""
    return delta.size_bytes > SMALL_BLOCK_MAX_BYTES * max(delta.blocks, 1)


def _likely(found: Found) -> str:
    """The task that has left behind nearly all, by the allocators; else what belongs to none."""
    left = {task: of_task.blocks for task, of_task in found.left_by.items() if task != ALL}
    total = sum(left.values())
    most = max(left, key=lambda task: left[task], default=SHARED_NAME)
    return most if total and left[most] >= _LIKELY_SHARE * total else SHARED_NAME


def _code_outside(frames: Frames, chosen: SiteFilter) -> str:
    """Whether the stack is of a receiver of signals or of code outside of runs; empty for none.

    Code of the user's that Celery calls while it runs a task, as ``after_return``, is the task's.
    """
    is_of_user = False
    for path, _ in frames:
        if path == chosen.called_from:
            return "receiver"
        if is_of_user and path == _TRACER_CODE:
            return ""
        if path.endswith(_POOL_CODE):
            return "idle"
        is_of_user = is_of_user or bool(chosen.is_of_user(path))
    return "idle" if frames[-1][0] == threading.__file__ else ""


def window_records(
    pid: int,
    kind: WindowKind,
    task: str,
    sites: Mapping[str, Sequence[SiteDelta]],
    *,
    runs: int = 1,
    aborted: bool = False,
    capture: int = 0,
) -> list[Record]:
    """The window and its largest sites, given by the kind of code that allocated (`SITE_CODE`).

    Largest of both signs: a site that shrinks in every run is no leak, and the reporter needs it
    to find that. A capture has more sites than a sampled window. The rest is the window's
    ``other_*``.
    """
    bound = SITES_PER_CAPTURE if capture else SITES_PER_WINDOW
    found = [(delta, where) for where, deltas in sites.items() for delta in deltas]
    ranked = sorted(found, key=lambda each: abs(each[0].size_bytes), reverse=True)
    kept, rest = ranked[:bound], ranked[bound:]
    return [
        SitesWindow(
            pid,
            time.time_ns(),
            kind,
            runs,
            int(aborted),
            capture,
            len(kept),
            sum(delta.size_bytes for delta, _ in rest),
            sum(delta.blocks for delta, _ in rest),
            task,
        ),
        *(
            Site(
                pid,
                kind,
                capture,
                delta.size_bytes,
                delta.blocks,
                delta.line,
                int(delta.of_library),
                task,
                delta.path,
                "\n".join(f"{path}:{line}" for path, line in reversed(delta.stack)),
                delta.via,
                where,
            )
            for delta, where in kept
        ),
    ]
