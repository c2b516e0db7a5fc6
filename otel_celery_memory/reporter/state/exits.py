"""How a process ended, from all that was said of it. Pure.

The child's goodbye, the main process that reaped it, the main process that ran out of patience
with its task, and the kernel's count of OOM kills each know a part.
"""

from __future__ import annotations

from dataclasses import dataclass

from otel_celery_memory.ipc.records import MAIN_SLOT, ExitReason, ProcessDown, TaskStarted
from otel_celery_memory.reporter.state.oom_kills import OomKills
from otel_celery_memory.reporter.state.processes import ProcessState

EX_RECYCLE = 155
"""billiard's exit code of a child that reached a per-child limit."""
_SIGKILL, _SIGTERM = 9, 15
_CRASH_SIGNALS = frozenset((4, 6, 7, 8, 11))
"""SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV: the process's own doing."""
_LOST = frozenset(
    (
        ExitReason.TIME_LIMIT,
        ExitReason.TERMINATED,
        ExitReason.OOM_KILL,
        ExitReason.KILLED,
        ExitReason.CRASHED,
    )
)
_WANTED = (ExitReason.TERMINATED.value, ExitReason.AUTOSCALE.value)
_How = tuple[ExitReason, int | None, TaskStarted | None]
"""Reason, signal, and the task that was lost."""


@dataclass(frozen=True)
class ProcessEnd:
    """How a process ended; ``task`` is what it was running, where it did not end by itself."""

    process: ProcessState
    reason: ExitReason
    signal: int | None
    task: TaskStarted | None
    time_ns: int

    @property
    def lost(self) -> bool:
        """Whether it ended otherwise than by shutdown, recycling or shrinking, or took a task."""
        # A pool picks idle children when it shrinks, but one may be given a task that moment.
        shrunk = self.reason is ExitReason.AUTOSCALE and self.task is not None
        return shrunk or self.reason in _LOST


@dataclass(frozen=True)
class Worker:
    """What is known of the worker as a whole when one of its processes has ended."""

    stopping: bool
    said_goodbye: bool


def end_of(process: ProcessState, worker: Worker, overdue: bool, oom: OomKills) -> ProcessEnd:
    """How a process that is gone ended; ``overdue``: its task had run into its hard time limit."""
    assert process.gone_ns is not None
    if overdue:
        # The child tells the end of the task and begins its goodbye before the SIGKILL comes.
        how: _How = (ExitReason.TIME_LIMIT, None, process.last)
    elif process.wanted in _WANTED and not worker.stopping:
        how = _as_wanted(process)
    elif process.down is not None:
        how = _after_goodbye(process, process.down, worker)
    elif process.slot == MAIN_SLOT and worker.said_goodbye:
        how = (ExitReason.SHUTDOWN, None, None)
    else:
        how = _without_goodbye(process, process.gone_ns, oom)
    return ProcessEnd(process, *how, process.gone_ns)


def _as_wanted(process: ProcessState) -> _How:
    """The main process sent the signal; the child says goodbye in its handler if it can."""
    reason = ExitReason(process.wanted)
    number = _signal_of(process) if reason is ExitReason.TERMINATED else None
    return reason, number, _cut_task(process)


def _after_goodbye(process: ProcessState, down: ProcessDown, worker: Worker) -> _How:
    number = signal_in(down.exit_code)
    if worker.stopping or (number is None and not process.terminated):
        return announced(down), None, None
    # Its goodbye is orderly all the same: SIGTERM from outside, or sys.exit() in the task.
    reason = ExitReason.CRASHED if number is None else ExitReason.KILLED
    return reason, number, _cut_task(process)


def _without_goodbye(process: ProcessState, gone_ns: int, oom: OomKills) -> _How:
    task = process.running
    reason, number = unannounced(process.exit_code)
    killed = reason is ExitReason.KILLED and number in (_SIGKILL, None)
    if killed and oom.claim(gone_ns):
        return ExitReason.OOM_KILL, _SIGKILL, task
    return reason, number, task


def _cut_task(process: ProcessState) -> TaskStarted | None:
    """The task that did not end by itself: told to have ended by its process's handler, or not."""
    if process.terminated:
        return process.last
    return process.running


def announced(down: ProcessDown) -> ExitReason:
    """The reason a process gave; one that we do not know is an orderly end all the same."""
    try:
        return ExitReason(down.reason)
    except ValueError:
        return ExitReason.SHUTDOWN


def _signal_of(process: ProcessState) -> int | None:
    """The signal that ended it, by the code of its goodbye or of its exit."""
    said = process.down.exit_code if process.down is not None else 0
    return signal_in(said) or signal_in(process.exit_code or 0)


def signal_in(exit_code: int) -> int | None:
    """The signal in a negative exit code.

    The kernel's is the signal's negative; billiard's handler leaves with the signal less 256.
    """
    if -256 < exit_code < -128:
        return 256 + exit_code
    return -exit_code if -128 <= exit_code < 0 else None


def unannounced(exit_code: int | None) -> tuple[ExitReason, int | None]:
    """Reason and signal of an end without goodbye, by the exit code, if it is known."""
    if exit_code is None:
        return ExitReason.KILLED, None
    if exit_code == 0:
        return ExitReason.SHUTDOWN, None  # its goodbye was dropped
    if exit_code == EX_RECYCLE:
        return ExitReason.MAX_TASKS, None
    if exit_code == _SIGTERM:
        return ExitReason.KILLED, _SIGTERM  # billiard's handler, less what the kernel keeps of it
    if exit_code > 0:
        return ExitReason.CRASHED, None
    number = signal_in(exit_code)
    return (ExitReason.CRASHED if number in _CRASH_SIGNALS else ExitReason.KILLED), number
