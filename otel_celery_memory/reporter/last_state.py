"""The last state of a worker, kept in a file in case all of it is killed at once.

If a whole container is killed, no reporter is left to emit the losses. So the reporter saves the
last known processes and tasks in one small file in the user's state directory. The next reporter of
the same node name reads the file and emits them. A reporter that has exported everything removes
the file, so a file that is found was not exported. A reporter that is restarted under the same
worker does not read it.

The file has names and sizes only. It is replaced by renaming, so a reader never sees half of one.
It is not forced to the disk: it survives the end of all processes, but not always a crash of the
machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from otel_celery_memory.ipc.records import MAIN_SLOT, SLOTS_MAX, ExitReason, slot_name
from otel_celery_memory.reporter.state.processes import ProcessState
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.telemetry.events import LostProcess, ProcessSnapshot

logger = logging.getLogger(__name__)

_FORMAT = 2
_READ_MAX_BYTES = 4 << 20
PROCESSES_MAX = 1_000
_TEXT_MAX = 512
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SIGKILL = 9


@dataclass(frozen=True)
class SavedProcess:
    """The last known state of a process, and its task in flight, if any."""

    slot: int | None
    pid: int
    rss_bytes: int | None
    rss_peak_bytes: int | None
    task: str | None
    task_id: str | None
    task_started_ns: int | None
    task_rss_start_bytes: int | None
    task_rss_peak_bytes: int | None
    """Above the start."""
    task_losses: int | None
    """How many processes its message had cost the worker before."""


@dataclass(frozen=True)
class SavedWorker:
    """The last known state of a worker, at ``time_ns``.

    ``main_started`` is the main process's start in ticks since boot; with the pid it identifies the
    process. ``cgroup`` identifies the cgroup whose OOM kills are counted.
    """

    time_ns: int
    main_pid: int
    main_started: int
    cgroup: str
    oom_kills: int | None
    processes: tuple[SavedProcess, ...]


class LastStateFile:
    """Reads, writes and removes the file of one node."""

    def __init__(self, directory: Path, node_name: str) -> None:
        readable = re.sub(r"[^A-Za-z0-9._@-]", "_", node_name)[:100].lstrip(".")
        digest = hashlib.sha256(node_name.encode("utf-8", "replace")).hexdigest()[:8]
        self.path = directory / f"{readable}-{digest}.json"
        self._failed = False

    def write(self, known: SavedWorker) -> None:
        """Replaces the file. Logs the first failure; the next call tries again."""
        try:
            self._replace(json.dumps({"format": _FORMAT, **asdict(known)}).encode())
        except OSError as error:
            if not self._failed:
                logger.warning("the state cannot be saved in %s: %s", self.path.parent, error)
            self._failed = True

    def _replace(self, content: bytes) -> None:
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        new = self.path.with_suffix(".new")
        # A reporter may have been killed at this point before. A link is removed, not followed.
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        fd = os.open(new, _NEW_FILE, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        new.replace(self.path)

    def remove(self) -> None:
        """Removes the file; a missing one is no error."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def read(self) -> SavedWorker | None:
        """What was written last; ``None`` if there is no file, or none that we wrote."""
        try:
            content = self._content()
            return None if content is None else _worker(json.loads(content))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            logger.warning("the state in %s is not used: %s", self.path, type(error).__name__)
            return None

    def _content(self) -> bytes | None:
        try:
            # Non-blocking: the name may be a FIFO.
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise ValueError("not a file of this user")
            return file.read(_READ_MAX_BYTES)


def _worker(data: Any) -> SavedWorker:
    """The worker in parsed JSON. Raises `ValueError`, `TypeError` or `KeyError` if invalid."""
    if data["format"] != _FORMAT:
        raise ValueError("another format")
    processes = data["processes"]
    if not isinstance(processes, list):
        raise TypeError("processes")
    return SavedWorker(
        time_ns=_number(data["time_ns"]),
        main_pid=_number(data["main_pid"]),
        main_started=_number(data["main_started"]),
        cgroup=_text(data["cgroup"]),
        oom_kills=None if data["oom_kills"] is None else _number(data["oom_kills"]),
        processes=tuple(_process(each) for each in processes[:PROCESSES_MAX]),
    )


def _process(data: Any) -> SavedProcess:
    values: dict[str, Any] = {}
    for item in fields(SavedProcess):
        value = data[item.name]
        if value is not None:
            value = _text(value) if item.name in ("task", "task_id") else _number(value)
        values[item.name] = value
    known = SavedProcess(**values)
    if known.pid is None or (known.slot is not None and known.slot >= SLOTS_MAX):
        raise ValueError("no process")
    return known


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -1 <= value < 2**63:
        raise ValueError("no number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value[:_TEXT_MAX]


class NoLastState:
    """Used if the user set no state directory."""

    def recover(self, oom_kills: int | None) -> list[tuple[LostProcess, int]]:
        """Returns nothing."""
        return []

    def save(self) -> None:
        """Writes nothing."""

    def discard(self) -> None:
        """Removes nothing."""


class LastState(NoLastState):
    """Saves the state of a worker, and recovers what an earlier one saved."""

    def __init__(
        self,
        file: LastStateFile,
        state: WorkerState,
        main: tuple[int, int | None],
        cgroup: str,
        started_of: Callable[[int], int | None],
        losses_of: Callable[[str], int],
    ) -> None:
        """``main`` is the main process's pid and start; ``started_of`` reads a process's start.

        ``losses_of`` is how many processes a message, by its task's id, has cost the worker.
        """
        self._losses_of = losses_of
        self._file = file
        self._state = state
        self._main = main
        self._cgroup = cgroup
        self._started_of = started_of

    def recover(self, oom_kills: int | None) -> list[tuple[LostProcess, int]]:
        """Lost processes of an earlier worker, with the time of their last state.

        ``oom_kills`` is the cgroup's count now; ``None`` if there is none.
        """
        known = self._file.read()
        if known is None or self._started_of(known.main_pid) == known.main_started:
            return []  # that worker still runs: two workers have one name
        same = known.cgroup != "" and known.cgroup == self._cgroup
        kills = None
        if same and oom_kills is not None and known.oom_kills is not None:
            kills = max(oom_kills - known.oom_kills, 0)
        return [
            (_lost(process, known.time_ns, at < (kills or 0), kills), known.time_ns)
            for at, process in enumerate(sorted(known.processes, key=_likeliest_victim_first))
        ]

    def save(self) -> None:
        """Saves the state as it is now."""
        pid, started = self._main
        self._file.write(
            SavedWorker(
                time_ns=time.time_ns(),
                main_pid=pid,
                main_started=started or 0,
                cgroup=self._cgroup,
                oom_kills=self._state.oom.count,
                processes=tuple(
                    self._saved(process)
                    for process in islice(self._state.processes.values(), PROCESSES_MAX)
                    if process.down is None
                ),
            )
        )

    def _saved(self, process: ProcessState) -> SavedProcess:
        task = process.running
        return SavedProcess(
            slot=process.slot,
            pid=process.pid,
            rss_bytes=process.rss_bytes,
            rss_peak_bytes=process.rss_peak_bytes,
            task=task.task if task else None,
            task_id=task.task_id if task else None,
            task_started_ns=task.time_ns if task else None,
            task_rss_start_bytes=task.rss_bytes or None if task else None,
            task_rss_peak_bytes=process.run_peak_of(task),
            task_losses=self._losses_of(task.task_id) if task else None,
        )

    def discard(self) -> None:
        """Removes the file: everything has been exported."""
        self._file.remove()


def _likeliest_victim_first(process: SavedProcess) -> tuple[bool, int]:
    """Sort key: the main process, whose death ends its children; then by size, as the kernel."""
    return process.slot != MAIN_SLOT, -(process.rss_bytes or 0)


def _lost(process: SavedProcess, seen_ns: int, oom: bool, oom_kills: int | None) -> LostProcess:
    started_ns = process.task_started_ns
    snapshot = ProcessSnapshot(
        slot=slot_name(process.slot),
        pid=process.pid,
        rss_bytes=process.rss_bytes,
        rss_peak_bytes=process.rss_peak_bytes,
        task=process.task,
        task_id=process.task_id,
        task_age_s=None if started_ns is None else round((seen_ns - started_ns) / 1e9, 3),
        task_rss_start_bytes=process.task_rss_start_bytes,
    )
    reason = ExitReason.OOM_KILL if oom else ExitReason.KILLED
    return LostProcess(
        snapshot,
        reason.value,
        _SIGKILL if oom else None,
        oom_kills,
        recovered=True,
        repeated=None if process.task_losses is None else process.task_losses + 1,
        task_rss_peak_bytes=process.task_rss_peak_bytes,
    )
