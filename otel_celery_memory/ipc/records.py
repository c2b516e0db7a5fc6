"""The records that the worker's processes send: what happened, when, in which process.

They are named tuples and not dataclasses because every task makes two: a named tuple is immutable
too, and is made in a third of the time. Sizes are in bytes, times are nanoseconds since the epoch,
and ``None`` means "could not be measured". :mod:`otel_celery_memory.ipc.codec` encodes them.
"""

from __future__ import annotations

import signal
from enum import Enum
from typing import NamedTuple

MAIN_SLOT = -1
"""The slot number of a worker's main process; children of the pool count from 0."""

WAKE_SIGNAL = signal.SIGURG
"""Has the reporter look at once. Ignored by default, so it may come before a handler is there."""

SLOTS_MAX = 10_000
"""A slot number from here on comes from a damaged record."""

RAISED_STATES = ("FAILURE", "RETRY")
"""States of a run that ended in an exception."""

TERMINATED = "TERMINATED"
"""The state of a task that its process's end terminated: Celery's postrun has none for it."""

NO_SPAN = bytes(25)
"""The ``span`` of a record without one."""


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
    EXITED = "exited"
    CRASHED = "crashed"


class ProcessUp(NamedTuple):
    """A process that runs tasks, or the worker's main process, is ready or still there."""

    pid: int
    time_ns: int
    slot: int
    rss_bytes: int


class ProcessDown(NamedTuple):
    """A process ends in an orderly way.

    ``retained_bytes`` is RSS now less RSS at the start of the last task, whose name is
    ``previous_task``: without it, a child that runs one task would never report what it retained.
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
    """A task starts.

    ``retained_bytes`` is RSS at this start less RSS at the start of ``previous_task``, the task
    before it in this process; ``None`` if there was none, or if tasks overlapped, so that the
    growth belongs to no single task.
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
    """A task ended; how it changed the memory of its process.

    ``rss_delta_bytes`` is RSS at the end less RSS at the start, negative if memory was released.
    ``rss_peak_bytes`` and ``traced_peak_bytes`` are the highest values, above the start.
    ``exclusive`` is 0 if another task ran in the process meanwhile. ``span`` is the trace id (16
    bytes), span id (8) and trace flags (1) of the task's span, `NO_SPAN` if there is none. The
    start of a plain run is written to the control page and not sent as a `TaskStarted`; then
    ``retained_bytes`` and ``previous_task`` are here.
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

    ``COMPLETE``: left behind by complete runs of the task, one after the other. ``PARTIAL``: alive
    when the tracing of a part of a run was stopped, or after a run that raised; it may be freed
    later. ``PROCESS``: growth of the process's whole live heap since a baseline. ``HEAP``: all that
    is traced and alive. ``FIRST_RUN``: alive after a single run, with nothing to compare it with;
    such a run also allocates what the process keeps for good.
    """

    COMPLETE = 0
    PARTIAL = 1
    PROCESS = 2
    HEAP = 3
    FIRST_RUN = 4


SITE_CODE = ("task", "receiver", "idle", "")
"""What code allocated at a site: the task's function or what it called, a receiver of Celery's
signals, code outside of runs such as a thread or the pool's own, or not known."""


class SitesWindow(NamedTuple):
    """Traced memory was examined; ``sites`` records of type `Site` follow.

    ``runs`` is how many runs of the task the window covers. ``aborted`` is 1 if a complete run
    should have been traced and was not. ``capture`` is the number of the capture that the window is
    part of, 0 for none. ``other_bytes`` and ``other_blocks`` are the sum of the sites that do not
    follow, for lack of room.
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
    """A file and line that allocated memory of a window.

    ``kind`` and ``capture`` are the window's. ``size_bytes`` and ``blocks`` are negative if more
    was freed than allocated. ``path`` and ``line`` are the site's owner. ``stack`` has one
    ``file:line`` a line, most recent call last, and is empty if one frame was traced. ``via`` is
    the line of a library that the owner called, and ``where`` one of `SITE_CODE`. ``of_library`` is
    1 where no line of the stack is the user's.
    """

    pid: int
    kind: int
    capture: int
    size_bytes: int
    blocks: int
    line: int
    of_library: int
    task: str
    path: str
    stack: str
    via: str = ""
    where: str = ""


class HeapSampled(NamedTuple):
    """A sample of one process's heap, from the interpreter and malloc.

    ``collections_0`` to ``uncollectable_2`` are what the garbage collector has done in the process
    since its start, by generation: how often, and with how many objects.
    """

    pid: int
    time_ns: int
    blocks: int
    malloc_used_bytes: int | None
    malloc_free_bytes: int | None
    collections_0: int | None = None
    collections_1: int | None = None
    collections_2: int | None = None
    collected_0: int | None = None
    collected_1: int | None = None
    collected_2: int | None = None
    uncollectable_0: int | None = None
    uncollectable_1: int | None = None
    uncollectable_2: int | None = None

    @property
    def collector(self) -> tuple[int | None, ...]:
        """The nine numbers of the collector, in their order."""
        return self[5:]


class RunRetained(NamedTuple):
    """What one run left behind, by the process's own counters; sent of a sample of runs.

    The difference from just before the run to just before the next one, both right after a
    collection of the young objects, so that cyclic garbage of the run is not in it: that is
    ``garbage_bytes``. ``heap_bytes`` is of what the allocators have in use, ``level_bytes`` how
    much that is now. ``warm_up`` is 1 for the task's first run in the process, and for a run that
    imported modules. ``alike`` is 1 where the runs before and after it were of the same task: just
    before a run its message is in memory and the last result, so that otherwise the difference
    between two messages or results is in these numbers. The
    first ones of a process are never alike.
    """

    pid: int
    time_ns: int
    warm_up: int
    alike: int
    heap_bytes: int | None
    blocks: int
    open_files: int | None
    threads: int | None
    garbage_bytes: int | None
    level_bytes: int | None
    task: str

    @property
    def least_bytes(self) -> int:
        """Of ``heap_bytes``, less than that may be anything else: see `ALIKE_LEAST_BYTES`."""
        return ALIKE_LEAST_BYTES if self.alike else UNLIKE_LEAST_BYTES


SHARED_NAME = "_shared"
"""The task name of sites that were traced while several tasks ran: they belong to none."""
ALIKE_LEAST_BYTES = 90
"""Less than a block is what the interpreter's caches may do."""
UNLIKE_LEAST_BYTES = 1024
"""So much may be the difference between two small messages, and between what two tasks return."""


class FloorMeasured(NamedTuple):
    """Levels of a process between two runs, right after a full collection (a *floor*).

    ``runs`` is how many runs the process had until then, ``collected`` how many objects the
    collection freed, ``pause_ns`` how long it took.
    """

    pid: int
    time_ns: int
    runs: int
    rss_bytes: int
    heap_bytes: int | None
    blocks: int
    open_files: int | None
    threads: int | None
    collected: int
    garbage_bytes: int | None
    pause_ns: int


class TaskOverdue(NamedTuple):
    """The main process terminates a child because its task exceeded the hard time limit."""

    pid: int
    time_ns: int
    task_id: str
    task: str


class ProcessExited(NamedTuple):
    """The main process has reaped a child; ``exit_code`` is negative for a signal, as in POSIX.

    ``reason`` is ``autoscale`` or ``terminated`` if the main process itself terminated it, to
    shrink the pool or to revoke its task, and empty otherwise. ``task_id`` is the id of its last
    task, as the main process knows it; empty if it knows none. ``span`` is the span that sent that
    task's message, if it is in a sampled trace. ``redelivered`` is 1 if the broker says that it had
    delivered that message before. ``idle`` is 1 if the child had written to the control page that
    it ran no task; the end of its last task may have been dropped. It is 0 if the child ran a task,
    or if that is not known.
    """

    pid: int
    time_ns: int
    exit_code: int
    slot: int
    idle: int
    redelivered: int
    span: bytes
    reason: str
    task_id: str


class TaskInFlightAtExit(NamedTuple):
    """A process died in this task, as the control page shows.

    The main process sends it when it reaps a child. The next child in the slot sends it too, before
    its own tasks overwrite the area. The fields are those of `TaskStarted`.
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
    """A task that a process runs, sent by the main process to a reporter that was started again."""

    pid: int
    time_ns: int
    task_id: str
    task: str


class WorkerStopping(NamedTuple):
    """The main process begins a shutdown, warm or cold."""

    pid: int
    time_ns: int


class Goodbye(NamedTuple):
    """The main process ends in an orderly way: no record follows."""

    pid: int
    time_ns: int


class PartFailed(NamedTuple):
    """A part of the instrumentation raised and is switched off in this process until it ends.

    Sent again from time to time, as a frame may be dropped or the reporter started again. ``part``
    is one of ``conventions.PARTS``.
    """

    pid: int
    time_ns: int
    slot: int
    part: str


class MessagesHeld(NamedTuple):
    """The messages that the main process holds, by the words of ``celery inspect``.

    ``active`` ones run, ``reserved`` ones wait for a process, ``scheduled`` ones for their time.
    Of ``revoked`` tasks it holds the ids. Sizes are those of the bodies, estimated from some of
    them.
    """

    pid: int
    time_ns: int
    active: int
    reserved: int
    scheduled: int | None
    revoked: int
    active_bytes: int | None
    reserved_bytes: int | None
    scheduled_bytes: int | None


class WhyNotTraced(str, Enum):
    """Why allocations of a task are not traced within the budget."""

    SLOW = "slow"
    """It would be delayed by more than ``max_added_latency``."""
    TIME_LIMIT = "time_limit"
    """It could reach its time limit because of that."""
    TRACEMALLOC = "tracemalloc"
    """It uses ``tracemalloc`` itself."""
    TRACED = ""


class TaskNotTraced(NamedTuple):
    """Runs of a task are not traced in this process, as ``reason`` says (`WhyNotTraced`); if that
    is empty, they are again. Sent when it has changed.
    """

    pid: int
    time_ns: int
    task: str
    reason: str


class TypeGrown(NamedTuple):
    """A type of which a process has more objects than before, in a census; the census follows.

    ``objects`` is how many there are now, ``growth`` how many more than ``runs`` runs before. Of
    ``sampled`` new ones, ``alike`` are held by ``holder``: names of modules, types and attributes,
    the root first. Where the collector does not track the objects, ``objects`` are those in that
    one container.
    """

    pid: int
    census: int
    runs: int
    objects: int
    growth: int
    sampled: int
    alike: int
    type: str
    holder: str


class ObjectsCounted(NamedTuple):
    """The census of a process is complete or, as ``problem`` says, could not be taken.

    ``objects`` and ``growth`` are of all that the collector tracks, over ``runs`` runs.
    ``collected`` is 1 if garbage was collected before both moments. ``hold_ns`` is the longest that
    a run was held.
    """

    pid: int
    time_ns: int
    census: int
    runs: int
    objects: int
    growth: int
    collected: int
    hold_ns: int
    problem: str


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
    | RunRetained
    | FloorMeasured
    | TaskNotTraced
    | MessagesHeld
    | TypeGrown
    | ObjectsCounted
)


def slot_name(slot: int | None) -> str:
    """The value of ``celery.worker.slot`` for a slot number; ``_other`` if it is not known."""
    if slot is None or not MAIN_SLOT <= slot < SLOTS_MAX:
        return "_other"
    return "main" if slot == MAIN_SLOT else str(slot)


def tally_text(measured: int, dropped: int, restarts: int = 0) -> str:
    """What a worker's log says at its end, of its tasks and of records that were dropped."""
    since = " since the reporter was last started again" if restarts else ""
    return (
        f"otel_celery_memory: {measured:,} task{'s' * (measured != 1)} measured{since}, "
        f"{dropped:,} record{'s' * (dropped != 1)} dropped"
    )


def size_text(size_bytes: int | None) -> str:
    """A size for people, with its sign: ``1.5 KiB``; ``-`` if it is not known."""
    if size_bytes is None:
        return "-"
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def printable(text: str) -> str:
    """One line for a log or a terminal: whoever sends a message chooses its id."""
    return "".join(char if char.isprintable() else "?" for char in text)
