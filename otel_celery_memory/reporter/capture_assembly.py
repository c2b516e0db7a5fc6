"""Assembles captures: adds up by site what the processes send of them, and writes the file.

A capture waits for slots, not for processes: a child may live for fewer runs than were asked for,
and its successor sends the rest.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import Any

from otel_celery_memory.captures.directory import CaptureDirectory
from otel_celery_memory.captures.format import INT64_MAX
from otel_celery_memory.captures.model import (
    HEAP,
    PARTIAL,
    RUNS,
    Capture,
    CapturedProcess,
    CapturedSite,
    CaptureError,
)
from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.records import MAIN_SLOT, Site, SitesWindow, WindowKind, slot_name
from otel_celery_memory.reporter.symbolizer import CodePlace
from otel_celery_memory.reporter.window_totals import SiteKey
from otel_celery_memory.telemetry.events import Snapshot
from otel_celery_memory.telemetry.pipeline import start_or_run

logger = logging.getLogger(__name__)

EMPTY_SLOT_S = 10.0
"""A slot without a process for this long is not waited for: the pool has shrunk."""
_MAIN = slot_name(MAIN_SLOT)
_SITES_MAX = 20_000
GRACE_S = 2.0
"""How long after the end of a capture its last windows may still arrive."""
_REMEMBERED = 5
_KINDS = {WindowKind.COMPLETE: RUNS, WindowKind.PARTIAL: PARTIAL, WindowKind.HEAP: HEAP}


class CapturedSlots:
    """Which slots have sent windows of one capture; ``now_s`` is monotonic."""

    def __init__(self) -> None:
        self._windows: Counter[str] = Counter()
        self._senders: dict[str, CapturedProcess] = {}
        self._seen_s: dict[str, float] = {}

    def window_received(self, sender: CapturedProcess, now_s: float) -> None:
        """Counts a window of a slot."""
        self._windows[sender.slot] += 1
        self._senders[sender.slot] = sender
        self._seen_s[sender.slot] = now_s

    def update(self, running: Iterable[CapturedProcess], now_s: float) -> None:
        """Notes the processes that run tasks now."""
        for process in running:
            self._seen_s[process.slot] = now_s
            sender = self._senders.get(process.slot)
            if sender is not None and sender.pid == process.pid:
                self._senders[process.slot] = process  # its RSS is newer

    def incomplete(self, wanted: int, now_s: float) -> bool:
        """Whether a slot has still to send some of the ``wanted`` windows, or no slot is known."""
        # With a pool the main process runs no tasks, though it may be the only process now.
        slots = self._seen_s.keys() - {_MAIN} or self._seen_s.keys()
        waited_for = [slot for slot in slots if now_s - self._seen_s[slot] <= EMPTY_SLOT_S]
        return not waited_for or any(self._windows[slot] < wanted for slot in waited_for)

    def senders(self) -> tuple[CapturedProcess, ...]:
        """The last process of each slot that sent windows."""
        slots = sorted(self._senders, key=lambda slot: (len(slot), slot))
        return tuple(self._senders[slot] for slot in slots)


class WindowSums:
    """Sums of windows by site; sites beyond a bound are summed as others."""

    def __init__(self) -> None:
        self._runs: Counter[str] = Counter()
        self._size_bytes: Counter[SiteKey] = Counter()
        self._blocks: Counter[SiteKey] = Counter()
        self._other_bytes = self._other_blocks = 0

    @property
    def other_bytes(self) -> int:
        """Bytes at sites beyond the bound."""
        return _clamped(self._other_bytes)

    @property
    def other_blocks(self) -> int:
        """Allocations at sites beyond the bound."""
        return _clamped(self._other_blocks)

    def window(self, record: SitesWindow) -> None:
        """Adds a window's runs and what its records had no room for; its sites follow."""
        self._runs[record.task] += record.runs
        self._other_bytes += record.other_bytes
        self._other_blocks += record.other_blocks

    def site(self, record: Site) -> None:
        """Adds what a window found at one site."""
        key = (record.task, record.path, record.line, record.stack)
        if key not in self._size_bytes and len(self._size_bytes) >= _SITES_MAX:
            self._other_bytes += record.size_bytes
            self._other_blocks += record.blocks
            return
        self._size_bytes[key] += record.size_bytes
        self._blocks[key] += record.blocks

    def runs_of_tasks(self) -> dict[str, int]:
        """Runs of each task; windows of no task are left out."""
        return {task: _clamped(runs, 0) for task, runs in self._runs.items() if task}

    def sites(self, describe: Callable[[str, int], CodePlace]) -> tuple[CapturedSite, ...]:
        """The sites, largest first; ``describe`` names their lines."""
        return tuple(
            self._site(key, describe(key[1], key[2]))
            for key in sorted(self._size_bytes, key=lambda key: -self._size_bytes[key])
        )

    def _site(self, key: SiteKey, place: CodePlace) -> CapturedSite:
        task, path, line, stack = key
        return CapturedSite(
            task=task,
            path=path,
            line=_clamped(line, 0),
            function=place.function,
            name=place.name,
            stack=tuple(_frame(text) for text in stack.split("\n") if text),
            size_bytes=_clamped(self._size_bytes[key]),
            blocks=_clamped(self._blocks[key]),
        )


def _frame(text: str) -> tuple[str, int]:
    path, _, line = text.rpartition(":")
    return path, _clamped(int(line)) if line.isascii() and line.isdigit() else 0


def _clamped(number: int, low: int = -INT64_MAX) -> int:
    """The number within the bounds of a capture file: forged records may add up to anything."""
    return min(max(number, low), INT64_MAX)


def _clamped_process(process: CapturedProcess) -> CapturedProcess:
    """A process within the same bounds: a forged record may have any pid and size."""
    rss_bytes = process.rss_bytes
    return replace(
        process,
        pid=_clamped(process.pid, 0),
        rss_bytes=None if rss_bytes is None else _clamped(rss_bytes, 0),
    )


@dataclass(frozen=True)
class TakenCapture:
    """A completed capture, and its file or why it was not written."""

    number: int
    capture: Capture
    file: str | None
    error: str | None

    def snapshot(self) -> Snapshot:
        """The values of its event."""
        capture = self.capture
        return Snapshot(
            kind=capture.kind,
            reason=capture.reason,
            sites=len(capture.sites),
            runs=sum(capture.runs.values()),
            size_bytes=sum(site.size_bytes for site in capture.sites) + capture.other_bytes,
            file=self.file,
            error=self.error,
        )


class CaptureAssembly:
    """Assembles one capture at a time; keeps the last few for the view."""

    def __init__(
        self,
        worker: str,
        frames: int,
        describe: Callable[[str, int], CodePlace],
        save: Callable[[Capture], object] | None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._frames = frames
        self._describe = describe
        self._save = save
        self._clock_s = clock_s
        self._commands: Commands | None = None
        self._began_s = 0.0
        self._mode = ""
        self._sums: dict[int, WindowSums] = {}
        self._slots = CapturedSlots()
        self._sites_due: Counter[int] = Counter()
        self._sites_due_s = 0.0
        self._last = 0
        self._taken: deque[TakenCapture] = deque(maxlen=_REMEMBERED)
        self.read_orders: Callable[[], object] = lambda: None
        """Called if a window belongs to a capture that is not known yet."""

    def begin(self, commands: Commands, mode: str) -> None:
        """Begins the capture that ``commands`` ask for, if it is new; ``mode`` is of tracing."""
        if not commands.capture or commands.capture == self._last:
            return
        self._last = commands.capture
        self._commands, self._mode, self._began_s = commands, mode, self._clock_s()
        self._sums.clear()
        self._slots = CapturedSlots()
        self._sites_due.clear()

    def window(self, record: SitesWindow, sender: CapturedProcess) -> None:
        """Begins a window of the process ``sender``; its sites follow."""
        if record.capture > self._last:
            self.read_orders()
        if self._commands is None or record.capture != self._commands.capture:
            return
        if record.kind not in _KINDS:
            return  # a damaged record
        self._sums.setdefault(record.kind, WindowSums()).window(record)
        self._slots.window_received(sender, self._clock_s())
        self._sites_due[record.pid] = record.sites
        self._sites_due_s = self._clock_s() + GRACE_S

    def site(self, record: Site) -> None:
        """Adds what a window found at one site."""
        if self._commands is None or record.capture != self._commands.capture:
            return
        sums = self._sums.get(record.kind)
        if sums is not None:
            sums.site(record)
            self._sites_due[record.pid] -= 1

    def complete(
        self, processes: Iterable[CapturedProcess], *, all_now: bool = False
    ) -> TakenCapture | None:
        """The capture, once all slots have sent their windows or its time is over; else ``None``.

        ``processes`` are those that run tasks now; ``all_now`` does not wait.
        """
        commands = self._commands
        if commands is None:
            return None
        now_s = self._clock_s()
        self._slots.update(processes, now_s)
        wanted = 1 if WindowKind.HEAP in self._sums else commands.runs
        waiting = not wanted or self._sites_are_due() or self._slots.incomplete(wanted, now_s)
        if waiting and not all_now and now_s < commands.until_s + GRACE_S:
            return None
        self._commands = None
        taken = self._taken_now(commands, self._slots.senders())
        self._taken.append(taken)
        return taken

    def _sites_are_due(self) -> bool:
        """Whether sites of a window may still arrive; some may be lost."""
        return self._clock_s() < self._sites_due_s and max(self._sites_due.values(), default=0) > 0

    def view(self) -> list[dict[str, Any]]:
        """The running capture and the last ones, for the view."""
        running = (
            []
            if self._commands is None
            else [{"number": self._commands.capture, "state": "running"}]
        )
        return running + [
            {
                "number": taken.number,
                "state": "failed" if taken.error else "complete",
                "kind": taken.capture.kind,
                "sites": len(taken.capture.sites),
                "runs": sum(taken.capture.runs.values()),
                "file": taken.file,
                "error": taken.error,
            }
            for taken in reversed(self._taken)
        ]

    def _taken_now(
        self, commands: Commands, processes: tuple[CapturedProcess, ...]
    ) -> TakenCapture:
        capture = self._capture(commands, processes)
        if self._save is None:
            return TakenCapture(commands.capture, capture, None, None)
        try:
            saved = self._save(capture)
            file = None if saved is None else str(saved)
            return TakenCapture(commands.capture, capture, file, None)
        except CaptureError as error:
            logger.error("a capture was not written: %s", error)
            return TakenCapture(commands.capture, capture, None, str(error))

    def _capture(self, commands: Commands, processes: tuple[CapturedProcess, ...]) -> Capture:
        """Prefers whole runs to parts of runs, which show less; the two do not add up."""
        kinds = (WindowKind.HEAP, WindowKind.COMPLETE, WindowKind.PARTIAL)
        kind = next((kind for kind in kinds if kind in self._sums), WindowKind.COMPLETE)
        sums = self._sums.get(kind, WindowSums())
        return Capture(
            kind=_KINDS[kind],
            worker=self._worker,
            reason="SIGURG" if commands.by_signal else "remote control",
            taken_ns=time.time_ns(),
            duration_s=round(self._clock_s() - self._began_s, 3),
            frames=self._frames,
            tracing=self._mode,
            processes=tuple(map(_clamped_process, processes)),
            runs=sums.runs_of_tasks(),
            sites=sums.sites(self._describe),
            other_bytes=sums.other_bytes,
            other_blocks=sums.other_blocks,
        )


def saver(
    directory: str, profile_endpoint: str = "", resource: Any = None
) -> Callable[[Capture], object] | None:
    """Writes captures into ``directory`` as JSON and as a profile; ``None`` if none is set.

    They are also sent to ``profile_endpoint``, if there is one, as profiles of ``resource``.
    """
    write = partial(CaptureDirectory(directory).save, pprof=True) if directory else None
    if not profile_endpoint:
        return write

    def save(capture: Capture) -> object:
        # Nobody waits for the endpoint.
        sent = partial(_send_profile, profile_endpoint, capture, resource)
        start_or_run(Thread(target=sent, daemon=True))
        return write(capture) if write is not None else None

    return save


def _send_profile(endpoint: str, capture: Capture, resource: Any) -> None:
    try:
        # Loads protobuf's classes for profiles, which few need.
        from otel_celery_memory.telemetry.profiles import send_profile
        from otel_celery_memory.telemetry.providers import worker_resource

        send_profile(endpoint, capture, resource or worker_resource(capture.worker, os.environ))
    except CaptureError as error:
        logger.warning("otel_celery_memory: a capture was not sent as a profile: %s", error)
    except Exception:
        logger.exception("otel_celery_memory: a capture was not sent as a profile")
