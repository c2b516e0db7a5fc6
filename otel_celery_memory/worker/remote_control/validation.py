"""Commands that people may give a worker: what is refused, and what is written to the control page.

Remote commands come in the main process's event loop, signals in a thread of their own. Commands
are obeyed some at once, then so many a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from otel_celery_memory.captures.directory import CaptureDirectory
from otel_celery_memory.captures.model import CaptureError
from otel_celery_memory.ipc.commands import Commands
from otel_celery_memory.ipc.control_page import ControlPage
from otel_celery_memory.probes.native_threads import NativeLock, native_lock
from otel_celery_memory.settings import Settings

COMMANDS_AT_ONCE = 20
COMMANDS_PER_S = 2.0
"""An answer costs the main process's event loop a millisecond or so: at this rate nothing."""
RUNS_WITHIN_S = 120.0
"""A capture of so many runs waits no longer for them."""
SIGNAL_CAPTURE_S = 30.0
ALLOWANCE_S = 1.0
"""What a capture may add to one run: somebody asked for it, so more than the budget's."""


class RateLimit:
    """Lets `at_once` things pass, and from then on `per_s`; what it refuses costs nothing later."""

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
        self._asked_s = clock_s()

    def allows(self) -> bool:
        """Whether one more may pass now."""
        now_s = self._clock_s()
        passed = max(now_s - self._asked_s, 0.0) * self._per_s
        self._left = min(self._left + passed, float(self._at_once))
        self._asked_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class RefusedError(Exception):
    """Why a command is not carried out, in one line."""


@dataclass(frozen=True)
class WorkerControl:
    """The worker of this process, as those who give it orders see it."""

    settings: Settings
    page: ControlPage
    view: Callable[[], dict[str, Any] | None]
    running: Callable[[], bool]
    wake: Callable[[], None]
    """Have the capture include what is running now, where that can be."""
    rate: RateLimit = field(default_factory=RateLimit)
    lock: NativeLock = field(default_factory=native_lock)
    """Held from looking at the orders to giving new ones, so that none is lost."""


def begin_capture(
    control: WorkerControl, runs: int, seconds: float, allowance_s: float, *, signal: bool = False
) -> str:
    """Order a capture; what was ordered, in words. Raises `RefusedError`."""
    if not control.running():
        raise RefusedError("the worker is shutting down")
    complete = _complete(control)
    _refuse_while_one_is_taken(control.page.commands(), complete)
    directory = control.settings.capture_directory
    if directory:
        try:
            CaptureDirectory(directory).check()
        except CaptureError as error:
            raise RefusedError(str(error)) from None
    with control.lock:
        commands = control.page.commands()
        _refuse_while_one_is_taken(commands, complete)
        number = commands.capture + 1
        control.page.set_commands(
            replace(
                commands,
                capture=number,
                runs=runs,
                by_signal=signal,
                until_s=time.monotonic() + seconds,
                allowance_s=allowance_s,
            )
        )
    control.wake()
    what = f"the next {runs} runs of each process, within" if runs else "what runs for"
    where = f"it will be written to {directory}" if directory else "no capture_directory is set"
    return (
        f"capture {number} begins: {what} {seconds:.0f} s; {where}; "
        "`celery inspect memory` shows when it is complete"
    )


def switch_tracing(control: WorkerControl, mode: str) -> str:
    """Order another mode of tracing; what was ordered, in words. Raises `RefusedError`.

    A capture is of runs, or of the whole heap where tracing is always on: one that had begun as the
    one would end as the other.
    """
    complete = _complete(control)
    with control.lock:
        commands = control.page.commands()
        before = commands.mode or control.settings.tracing
        if before != mode and "always" in (before, mode):
            _refuse_while_one_is_taken(
                commands, complete, f": switch from {before} to {mode} when it is complete"
            )
        control.page.set_commands(replace(commands, mode=mode))
    return f"tracing is {mode} from each process's next task on"


def _refuse_while_one_is_taken(commands: Commands, complete: set[int], then: str = "") -> None:
    left_s = commands.until_s - time.monotonic()
    if commands.capture and left_s > 0 and commands.capture not in complete:
        raise RefusedError(
            f"capture {commands.capture} is being taken, for {left_s:.0f} s at most{then}"
        )


def _complete(control: WorkerControl) -> set[int]:
    """Captures that are no more being taken. Asked without the lock: a view may take a while."""
    captures = (control.view() or {}).get("captures", [])
    return {found["number"] for found in captures if found.get("state") != "running"}
