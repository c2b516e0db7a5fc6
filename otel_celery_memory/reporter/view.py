"""Keeps the view of the worker for ``inspect memory``, and starts and completes captures.

The view lies on the status page. A view that is too large for the page is cut until it fits: else
the page would keep an old view for as long as the worker has so much to show.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from otel_celery_memory import conventions as c
from otel_celery_memory.captures.model import CapturedProcess
from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    MessagesHeld,
    WindowKind,
    printable,
    slot_name,
)
from otel_celery_memory.ipc.status_page import EVIDENCE
from otel_celery_memory.leaks import words
from otel_celery_memory.leaks.standing import ranked
from otel_celery_memory.leaks.verdict import State, Verdict
from otel_celery_memory.probes.procfs import ProcessReading
from otel_celery_memory.reporter.emitter import Emitter
from otel_celery_memory.reporter.state.processes import ProcessState
from otel_celery_memory.reporter.state.totals import Kept, TaskTotal
from otel_celery_memory.reporter.window_totals import counted_bytes, place_of
from otel_celery_memory.telemetry.events import RankedSite

_FIRST = (
    *("objects", "sites", "tasks", "descendants", "processes"),
    *("switched_off", "captures", "losses", "verdicts"),
)
"""Lists in the order in which they are cut."""
_FLOORS = (5, 0)
"""No list is cut below five rows before all others are."""
VIEW_INTERVAL_S = 5.0
_TASKS_SHOWN = 50
_VERDICTS_SHOWN = 20
_PROCESSES_SHOWN = 200
_PARTS_SHOWN = 100
_OBJECTS_SHOWN = 100
_DESCENDANTS_SHOWN = 100
_FOUND_KEPT_S = 24 * 3_600.0
_FOUND_TASKS_SHOWN = 20


def write_what_fits(view: dict[str, Any], write: Callable[[dict[str, Any]], bool]) -> bool:
    """Writes the view, cut until ``write`` accepts it; returns whether it did at last.

    Lists lose their tails, as the largest rows come first. ``left_out`` in the view has how many
    rows of each list are missing.
    """
    if EVIDENCE in view:
        if write(view):
            return True
        # It is for a reporter that is started again, and people do not see it.
        view = {name: part for name, part in view.items() if name != EVIDENCE}
    left_out: dict[str, int] = {}
    for floor in _FLOORS:
        for name in _FIRST:
            while not write(view):
                rows = view[name]
                kept = rows[: max(len(rows) // 2, floor)]
                if len(kept) == len(rows):
                    break
                left_out[name] = left_out.get(name, 0) + len(rows) - len(kept)
                view = {**view, name: kept, "left_out": left_out}
            else:
                return True
    return False


class FoundSites:
    """The sites that were found lately: what a nightly job has left is still there in the morning.

    Those of a task stay for a day, until newer ones of it replace them, or samples of its runs say
    that it keeps nothing any more. Parts of runs and code of no task are not kept.
    """

    def __init__(self, kept: Callable[[str], Kept | None]) -> None:
        """``kept`` gives what a run of a task keeps by the counters."""
        self._kept = kept
        self._found: dict[str, tuple[float, list[RankedSite]]] = {}

    def with_age(self, sites: list[RankedSite], now_s: float) -> list[tuple[float, RankedSite]]:
        """The sites of now, then those of other tasks that were found before, by age in seconds."""
        for task in {site.task for site in sites}:
            if rows := [site for site in sites if site.task == task and _names_a_leak(site)]:
                self._found[task] = (now_s, rows)
        self._found = {
            task: (found_s, rows)
            for task, (found_s, rows) in self._found.items()
            if now_s - found_s <= _FOUND_KEPT_S and not self._keeps_nothing(task)
        }
        current = {site.task for site in sites}
        before = sorted(
            (now_s - found_s, task, rows)
            for task, (found_s, rows) in self._found.items()
            if task not in current and not self._stands_still(task, rows)
        )[:_FOUND_TASKS_SHOWN]
        return [
            *((0.0, site) for site in sites),
            *((age_s, row) for age_s, _, rows in before for row in rows),
        ]

    def _keeps_nothing(self, task: str) -> bool:
        kept = self._kept(task)
        return kept is not None and kept.is_nothing

    def _stands_still(self, task: str, rows: list[RankedSite]) -> bool:
        """Whether it runs and keeps no such thing just now: it may go on later."""
        kept = self._kept(task)
        return kept is not None and kept.contradicts(_counted_bytes(rows))


def _counted_bytes(rows: Iterable[RankedSite]) -> float:
    return sum(counted_bytes(row.size_bytes, row.blocks) for row in rows)


def _names_a_leak(site: RankedSite) -> bool:
    return bool(site.task) and site.kind in (WindowKind.COMPLETE, WindowKind.PROCESS)


class Inspector:
    """Reads commands, completes captures and writes the view, at each tick."""

    def __init__(
        self,
        emitter: Emitter,
        page: ControlPage,
        mode: str,
        tracing_s: Callable[[], tuple[float, float]],
        write: Callable[[dict[str, Any]], bool],
        clock_s: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._emitter = emitter
        self._page = page
        self._mode = mode
        self._tracing_s = tracing_s
        self._write = write
        self._clock_s = clock_s
        self._commands = Commands()
        self._found = FoundSites(emitter.tasks.kept)
        self._view_due_s = clock_s()
        self._ranked_s = clock_s()
        self.evidence: Callable[[], dict[str, Any]] = dict
        """What is to be kept for a reporter that is started again."""
        # A child may read the order of a capture before the next tick does.
        emitter.captures.read_orders = emitter.censuses.read_orders = self._read_orders

    def ranked(self) -> None:
        """The sites were just emitted: a new interval begins."""
        self._ranked_s = self._clock_s()

    def finish(self) -> None:
        """The worker ends: completes a running capture with what it has, and leaves a last view."""
        self.tick(last=True)

    def tick(self, *, last: bool = False) -> None:
        """Does what is due; ``last`` completes a running capture and writes the view at once."""
        mode = self._read_orders()
        taken = self._emitter.captures.complete(self._processes(), all_now=last)
        if taken is not None:
            self._emitter.emit_capture(taken)
        self._emitter.censuses.update(self._processes(), last=last)
        now_s = self._clock_s()
        if taken is not None or last or now_s >= self._view_due_s:
            self._view_due_s = now_s + VIEW_INTERVAL_S
            evidence = self.evidence()
            write_what_fits(
                {**self.view(mode), **({EVIDENCE: evidence} if evidence else {})}, self._write
            )

    def _read_orders(self) -> str:
        # While new commands are half written, those before apply.
        self._commands = self._page.read_commands() or self._commands
        mode = self._commands.mode or self._mode
        self._emitter.captures.begin(self._commands, mode)
        self._emitter.censuses.begin(self._commands)
        return mode

    def view(self, mode: str) -> dict[str, Any]:
        """The worker as it is now: sizes, names and lines of code, all lists bounded."""
        emitter = self._emitter
        task_s, spent_s = self._tracing_s()
        readings = emitter.context.processes()
        sites = self._sites_by_age()
        return {
            "verdicts": _verdicts(emitter.leaks),
            "verdicts_decided": emitter.leaks_decided,
            "tracing": {
                "mode": mode,
                "task_seconds": round(task_s, 3),
                "spent_seconds": round(spent_s, 6),
                "overhead": round(spent_s / task_s, 5) if task_s else None,
                "aborted": emitter.runs_aborted(),
            },
            "measured": emitter.runs_measured(),
            "warm_up_seconds": round(emitter.tasks.warm_up_left_s(self._wall_ns())),
            "processes": [
                _process(process, readings.get(slot_name(process.slot)))
                for process in sorted(self._running(), key=lambda process: process.slot or 0)
            ][:_PROCESSES_SHOWN],
            "messages": _messages(emitter.state.messages),
            "descendants": [
                {
                    "slot": size.slot,
                    "task": size.task,
                    "processes": size.processes,
                    "left": size.left,
                    "rss": size.rss_bytes,
                    "unique": size.unique_bytes,
                }
                for size in emitter.context.descendants()
                if size.processes
            ][:_DESCENDANTS_SHOWN],
            "tasks": [
                _task(name, total, kept, emitter.tree_peaks.get(name))
                for name, total, kept in self._tasks(sites)
            ],
            "sites": [_site(site, age_s) for age_s, site in sites],
            "losses": emitter.losses.view(self._wall_ns()),
            "captures": sorted(
                emitter.captures.view() + emitter.censuses.view(), key=lambda row: -row["number"]
            ),
            "objects": emitter.censuses.objects()[:_OBJECTS_SHOWN],
            "switched_off": [{"slot": slot, "part": part} for slot, part in emitter.switched_off()][
                :_PARTS_SHOWN
            ],
        }

    def _tasks(
        self, sites: Iterable[tuple[float, RankedSite]]
    ) -> list[tuple[str, TaskTotal, Kept | None]]:
        """The tasks whose runs left most behind, by the counters or by the sites of now."""
        found: dict[str, list[RankedSite]] = {}
        for age_s, site in sites:
            if not age_s and site.kind == WindowKind.COMPLETE:
                found.setdefault(site.task, []).append(site)

        def with_found(name: str, kept: Kept | None) -> Kept | None:
            rows = found.get(name)
            if kept is None or not rows:
                return kept
            return kept.with_found(sum(row.size_bytes for row in rows), _counted_bytes(rows))

        return self._emitter.tasks.largest(_TASKS_SHOWN, with_found)

    def sites(self) -> list[RankedSite]:
        """The sites of now by line, then those of other tasks that were found before."""
        return [site for _, site in self._sites_by_age()]

    def _sites_by_age(self) -> list[tuple[float, RankedSite]]:
        interval_s = max(self._clock_s() - self._ranked_s, 1.0)
        current = self._emitter.sites.peek(interval_s, place_of)
        return self._found.with_age(current, self._clock_s())

    def _running(self) -> list[ProcessState]:
        processes = list(self._emitter.state.processes.values())
        return [p for p in processes if p.gone_ns is None and p.slot is not None]

    def _processes(self) -> Iterable[CapturedProcess]:
        """The processes that run tasks: the children if there are any, else the main process."""
        running = self._running()
        children = [process for process in running if process.slot != MAIN_SLOT]
        return [process.captured() for process in children or running]


def _verdicts(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """Verdicts in words and in numbers: what leaks first, what has ended last."""
    return [_verdict(verdict) for verdict in ranked(verdicts)[:_VERDICTS_SHOWN]]


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """``rate`` is in the kind's unit a run; ``since`` is in seconds since the epoch."""
    rate, place, holder = verdict.rate, verdict.place, verdict.holder
    forecast = verdict.forecast if verdict.state != State.ENDED else None
    return {
        "text": printable(words.sentences(verdict)),
        "state": verdict.state.value,
        "kind": verdict.kind.value,
        "where": verdict.where.value,
        "task": verdict.task or None,
        "rate": _finite(rate.middle if rate else None),
        "site": place.name if place else None,
        "holder": holder.chain if holder else None,
        "exhaustion_seconds": _finite(forecast.seconds.middle if forecast else None),
        "since": _finite(verdict.since_s),
    }


def _finite(value: float | None) -> float | None:
    """Rounded, for JSON, which has no infinity."""
    return round(value, 3) if value is not None and math.isfinite(value) else None


def _process(process: ProcessState, reading: ProcessReading | None) -> dict[str, Any]:
    return {
        "slot": slot_name(process.slot),
        "pid": process.pid,
        "rss": process.rss_bytes,
        "unique": reading.unique_bytes if reading else None,
        "unique_at_start": reading.unique_at_start_bytes if reading else None,
        "copied": reading.copied_bytes if reading else None,
        "open_files": reading.open_files if reading else None,
        "malloc_free": process.heap.malloc_free_bytes if process.heap else None,
        "task": process.running.task if process.running else None,
    }


def _task(
    name: str, total: TaskTotal, kept: Kept | None, tree_peak_bytes: int | None
) -> dict[str, Any]:
    known = kept is not None and kept.bytes_per_run is not None
    return {
        "name": name,
        "runs": total.runs,
        "retained_per_run": _rounded(kept.bytes_per_run if kept else None),
        "retained_at_most": _rounded(kept.most_bytes) if kept and known else None,
        "sampled_runs": total.left_behind.samples,
        "peak": total.peak_bytes,
        "tree_peak": tree_peak_bytes,
        "largest": total.largest_bytes,
        "traced_runs": total.traced_runs,
        "traced_per_run": _mean(total.traced_bytes, total.traced_runs),
        "not_traced": total.not_traced.value or None,
    }


def _messages(held: MessagesHeld | None) -> dict[str, int | None] | None:
    if held is None:
        return None
    return {
        name: getattr(held, name)
        for state in c.MESSAGE_STATES
        for name in (state, f"{state}_bytes")
        if name in held._fields
    }


def _site(site: RankedSite, age_s: float) -> dict[str, Any]:
    return {
        "name": site.name,
        "function": site.function,
        "via": site.via or None,
        "where": site.where or None,
        "task": site.task or None,
        "window": site.kind.name.lower(),
        "size": site.size_bytes,
        "blocks": site.blocks,
        "runs": site.runs,
        "rate": None if age_s else site.rate_bytes_per_minute,
        "age_seconds": round(age_s),
    }


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def _mean(total: int, count: int) -> int | None:
    return round(total / count) if count else None
