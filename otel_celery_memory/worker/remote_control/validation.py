"""Validates the commands that people give a worker, and writes them to the control page.

Remote commands run in the main process's event loop, signals in a thread of their own. `RateLimit`
accepts some commands at once, then so many a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from otel_celery_memory.captures.directory import CaptureDirectory
from otel_celery_memory.captures.model import CaptureError
from otel_celery_memory.ipc.commands import TASK_NAME_MAX_BYTES, Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.probes.native_threads import NativeLock, native_lock
from otel_celery_memory.settings import Settings

COMMANDS_AT_ONCE = 20
COMMANDS_PER_S = 2.0
"""An answer takes about a millisecond of the main process's event loop: negligible at this rate."""
RUNS_WITHIN_S = 120.0
"""The longest that a capture of a number of runs waits for them."""
SIGNAL_CAPTURE_S = 30.0
ALLOWANCE_S = 1.0
"""What a capture may add to one run: more than the budget's, as somebody asked for it."""


class RateLimit:
    """Allows `at_once` commands, then `per_s` a second; a refused one does not count."""

    def __init__(
        self,
        at_once: int = COMMANDS_AT_ONCE,
        per_s: float = COMMANDS_PER_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_once = at_once
        self._per_s = per_s
        self._clock_s = clock_s
        self._left = float(at_once)
        self._checked_s = clock_s()

    def allows(self) -> bool:
        """Whether one more command is allowed now."""
        now_s = self._clock_s()
        passed = max(now_s - self._checked_s, 0.0) * self._per_s
        self._left = min(self._left + passed, float(self._at_once))
        self._checked_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class RefusedError(Exception):
    """A command is refused; the message says why, in one line."""


@dataclass(frozen=True)
class WorkerControl:
    """What commands need of the worker of this process."""

    settings: Settings
    page: ControlPage
    view: Callable[[], dict[str, Any] | None]
    running: Callable[[], bool]
    wake: Callable[[], None]
    """Makes a capture include the runs that have begun already, if possible."""
    rate: RateLimit = field(default_factory=RateLimit)
    lock: NativeLock = field(default_factory=native_lock)
    """Held from reading the commands to replacing them, so that none is lost."""


@dataclass(frozen=True)
class Wanted:
    """The runs that a capture or census is of, and what it may add to one of them.

    Either so many ``runs`` of each process, within ``seconds``, or all runs of these if that is 0.
    Those of ``task`` alone, if it is not empty.
    """

    runs: int
    seconds: float
    allowance_s: float
    task: str = ""

    def __str__(self) -> str:
        of = f" of {self.task}" if self.task else ""
        if self.runs:
            return f"the next {self.runs} runs{of} of each process, within {self.seconds:.0f} s"
        return f"the runs{of} of the next {self.seconds:.0f} s"


def begin_capture(control: WorkerControl, wanted: Wanted, *, signal: bool = False) -> str:
    """Begins a capture and returns a message for people. Raises `RefusedError`."""
    if wanted.task and (control.page.commands().mode or control.settings.tracing) == "always":
        raise RefusedError(
            "tracing is always on: a capture is of all that is alive, and of no single task"
        )
    directory = control.settings.capture_directory
    if directory:
        try:
            CaptureDirectory(directory).check()
        except CaptureError as error:
            raise RefusedError(str(error)) from None
    number = _order(control, wanted, signal=signal)
    control.wake()
    where = f"it will be written to {directory}" if directory else "no capture_directory is set"
    return (
        f"capture {number} begins: {wanted}; {where}; "
        "`celery inspect memory` shows when it is complete"
    )


def begin_census(control: WorkerControl, wanted: Wanted) -> str:
    """Begins a census and returns a message for people. Raises `RefusedError`."""
    number = _order(control, wanted, census=True)
    return (
        f"census {number} begins: objects that are there after {wanted}, and were not before; "
        "`celery inspect memory` shows when it is complete"
    )


def _order(
    control: WorkerControl, wanted: Wanted, *, signal: bool = False, census: bool = False
) -> int:
    """Writes the order of a capture or census; returns its number. Raises `RefusedError`."""
    if not control.running():
        raise RefusedError("the worker is shutting down")
    if len(wanted.task.encode()) > TASK_NAME_MAX_BYTES:
        raise RefusedError(f"the task's name is longer than {TASK_NAME_MAX_BYTES} bytes")
    finished = _finished_captures(control)
    with control.lock:
        commands = control.page.commands()
        _refuse_while_one_is_taken(commands, finished)
        number = commands.number + 1
        control.page.set_commands(
            Commands(
                mode=commands.mode,
                capture=0 if census else number,
                runs=wanted.runs,
                by_signal=signal,
                until_s=time.monotonic() + wanted.seconds,
                allowance_s=wanted.allowance_s,
                census=number if census else 0,
                task=wanted.task,
            )
        )
    return number


def switch_tracing(control: WorkerControl, mode: str) -> str:
    """Changes the mode of allocation tracing; returns a message for people. Raises `RefusedError`.

    A capture is of runs or, if tracing is always on, of the whole heap. So the mode cannot change
    between these while a capture is being taken.
    """
    finished = _finished_captures(control)
    with control.lock:
        commands = control.page.commands()
        before = commands.mode or control.settings.tracing
        if before != mode and "always" in (before, mode):
            _refuse_while_one_is_taken(
                commands, finished, f": switch from {before} to {mode} when it is complete"
            )
        control.page.set_commands(replace(commands, mode=mode))
    return f"tracing is {mode} from each process's next task on"


def _refuse_while_one_is_taken(commands: Commands, finished: set[int], then: str = "") -> None:
    left_s = commands.until_s - time.monotonic()
    if commands.number and left_s > 0 and commands.number not in finished:
        what = "census" if commands.census else "capture"
        raise RefusedError(
            f"{what} {commands.number} is being taken, for {left_s:.0f} s at most{then}"
        )


def _finished_captures(control: WorkerControl) -> set[int]:
    """The captures that have ended. Read without the lock, as a view may take a while."""
    captures = (control.view() or {}).get("captures", [])
    return {found["number"] for found in captures if found.get("state") != "running"}
