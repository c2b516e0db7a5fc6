"""The records that leave a process which runs tasks: what happened, when, in which process.

They are named tuples and not dataclasses because two are made in every task: immutable all the
same, and made in a third of the time. Sizes are in bytes, ``None`` is "could not be measured",
times are nanoseconds since the epoch. How they are written to the pipe is the business of
:mod:`otel_celery_memory.ipc.codec`.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

MAIN_SLOT = -1
"""The slot number of a worker's main process; children of the pool count from 0."""

SLOTS_MAX = 10_000
"""Slot numbers from here on are no slots, but a damaged record's."""

TERMINATED = "TERMINATED"
"""The state of a task that its process's end ended: Celery's postrun has none for it."""

NO_SPAN = bytes(25)
"""The ``span`` of a record that belongs to no span."""


class ExitReason(str, Enum):
    """Why a process of a worker ended: the values of ``celery.worker.exit.reason``."""

    MAX_TASKS = "max_tasks"
    MAX_MEMORY = "max_memory"
    SHUTDOWN = "shutdown"
    AUTOSCALE = "autoscale"
    TIME_LIMIT = "time_limit"
    TERMINATED = "terminated"
    OOM_KILL = "oom_kill"
    KILLED = "killed"
    CRASHED = "crashed"


class ProcessUp(NamedTuple):
    """A process that runs tasks, or the worker's main process, is ready."""

    pid: int
    time_ns: int
    slot: int
    rss_bytes: int


class ProcessDown(NamedTuple):
    """A process ends in an orderly way; says what its last task left behind.

    ``retained_bytes`` is RSS now less RSS at the start of the last task, whose name is
    ``previous_task``: without it a child that runs one task would never tell.
    """

    pid: int
    time_ns: int
    slot: int
    exit_code: int
    rss_bytes: int
    retained_bytes: int | None
    reason: str
    previous_task: str


class TaskStarted(NamedTuple):
    """A task begins; says what the one before it in this process left behind.

    ``retained_bytes`` is RSS at this start less RSS at the start of ``previous_task``; ``None``
    where there was none, or where tasks overlapped so that growth belongs to nobody.
    """

    pid: int
    time_ns: int
    rss_bytes: int
    retained_bytes: int | None
    nested: int
    task_id: str
    task: str
    previous_task: str


class TaskFinished(NamedTuple):
    """A task ended, with what it did to its process's memory.

    ``rss_delta_bytes`` is RSS at the end less RSS at the start (negative when memory was given
    back); ``rss_peak_bytes`` and ``traced_peak_bytes`` are highest values above the start.
    ``exclusive`` is 0 where another task ran in the process meanwhile. ``span`` is the trace id
    (16 bytes), span id (8) and trace flags (1) of the task's span, zero where there is none.
    Where no `TaskStarted` was sent, because the start was held in the control page, what that
    would have said of ``previous_task`` is said here.
    """

    pid: int
    time_ns: int
    started_ns: int
    rss_start_bytes: int
    rss_delta_bytes: int
    rss_peak_bytes: int | None
    traced_delta_bytes: int | None
    traced_peak_bytes: int | None
    retained_bytes: int | None
    exclusive: int
    nested: int
    span: bytes
    task_id: str
    task: str
    state: str
    previous_task: str


class WindowKind(int, Enum):
    """What the sites of a window show; the names, in lower case, are ``celery.memory.site.window``.

    ``COMPLETE``: left alive by one complete run of the task. ``PARTIAL``: alive when the tracing
    of a part of a run was stopped, or after a run that raised; it may be freed later. ``PROCESS``:
    growth of the process's whole live heap since a baseline. ``HEAP``: all that is traced and
    alive. ``FIRST_RUN``: what the reporter makes of a ``COMPLETE`` window if it is the task's first
    one in its process; such a run also allocates what the process keeps for good.
    """

    COMPLETE = 0
    PARTIAL = 1
    PROCESS = 2
    HEAP = 3
    FIRST_RUN = 4


class SitesWindow(NamedTuple):
    """Traced memory was examined; ``sites`` records of kind `Site` follow.

    ``runs`` is how many runs of the task it covers, ``aborted`` 1 where a run should have been
    seen whole and was not, ``capture`` the number of the capture it is part of, 0 for none.
    ``other_bytes`` and ``other_blocks`` are of the sites for which there was no room.
    """

    pid: int
    time_ns: int
    kind: int
    runs: int
    aborted: int
    capture: int
    sites: int
    other_bytes: int
    other_blocks: int
    task: str


class Site(NamedTuple):
    """A place in the code that allocated what a window found.

    ``kind`` and ``capture`` are the window's. ``size_bytes`` and ``blocks`` are negative where
    more was freed than allocated. ``path`` and ``line`` are the site's owner; ``stack`` has one
    ``file:line`` a line, most recent call last, and is empty where one frame was traced.
    """

    pid: int
    kind: int
    capture: int
    size_bytes: int
    blocks: int
    line: int
    task: str
    path: str
    stack: str


class HeapSampled(NamedTuple):
    """What the interpreter and malloc say of one process's heap."""

    pid: int
    time_ns: int
    blocks: int
    malloc_used_bytes: int | None
    malloc_free_bytes: int | None


class TaskOverdue(NamedTuple):
    """The main process ends a child because its task ran into the hard time limit."""

    pid: int
    time_ns: int
    task_id: str
    task: str


class ProcessExited(NamedTuple):
    """The main process has reaped a child; ``exit_code`` is negative for a signal, as in POSIX.

    ``reason`` is ``autoscale`` or ``terminated`` where the main process itself ended it, to shrink
    the pool or to revoke its task, and empty otherwise. ``span`` is the one that the message of
    its last task came from, where that is in a sampled trace: ``task_id`` is this task's then.
    ``idle`` is 1 where the child had said in the control page that it ran no task: the end of the
    last one may have been dropped. It is 0 where it ran one, or that is not known.
    """

    pid: int
    time_ns: int
    exit_code: int
    slot: int
    idle: int
    span: bytes
    reason: str
    task_id: str


class TaskInFlightAtExit(NamedTuple):
    """A process died in this task: what it held in the control page.

    Sent by the main process as it reaps a child, or by the next child in its slot, whose own tasks
    are written over it. The fields are those of `TaskStarted`.
    """

    pid: int
    time_ns: int
    rss_bytes: int
    retained_bytes: int | None
    nested: int
    task_id: str
    task: str
    previous_task: str


class TaskInFlight(NamedTuple):
    """The main process says what a process runs: for a reporter that did not hear it start."""

    pid: int
    time_ns: int
    task_id: str
    task: str


class WorkerStopping(NamedTuple):
    """The main process was asked to shut down, warm or cold."""

    pid: int
    time_ns: int


class Goodbye(NamedTuple):
    """The main process ends in an orderly way: no record follows."""

    pid: int
    time_ns: int


class PartFailed(NamedTuple):
    """A part of ours raised in this process and is switched off there, for as long as it lives.

    Told again now and then, for a reporter that did not hear it. ``part`` is one of the
    conventions' ``PARTS``.
    """

    pid: int
    time_ns: int
    slot: int
    part: str


Record = (
    ProcessUp
    | ProcessDown
    | TaskStarted
    | TaskFinished
    | SitesWindow
    | Site
    | HeapSampled
    | TaskOverdue
    | ProcessExited
    | WorkerStopping
    | Goodbye
    | TaskInFlight
    | TaskInFlightAtExit
    | PartFailed
)


def slot_name(slot: int | None) -> str:
    """The value of ``celery.worker.slot`` for a slot number; ``_other`` for one not known."""
    if slot is None or not MAIN_SLOT <= slot < SLOTS_MAX:
        return "_other"
    return "main" if slot == MAIN_SLOT else str(slot)
