"""How a process ended, from all that was said of it, and who took its place. Pure.

The child's goodbye, the main process that reaped it, the main process that ran out of patience
with its task, and the kernel's count of OOM kills each know a part. The cgroup counts its OOM
kills, but not of whom: a count that rose at about the time when a process died by SIGKILL is that
process's, and no other's. The victim may have been somebody else (a program that a task started):
then nobody claims it, and it is forgotten.

Recycling costs an empty place in the pool and brings memory given back. A child's end is judged
after its successor may be up, so the two are matched by their times.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from otel_celery_memory.ipc.records import (
    MAIN_SLOT,
    SLOTS_MAX,
    ExitReason,
    ProcessDown,
    ProcessUp,
    TaskStarted,
)
from otel_celery_memory.reporter.state.processes import ProcessState

CLAIM_WITHIN_NS = 10_000_000_000
"""How long after its kill a process may be seen to be gone: giving back its memory takes time."""
_UNCLAIMED_MAX = 64
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
_UPS_MAX = 32
"""Children of one place that may come up before the first of their predecessors is judged."""
_NOT_REPLACED = (ExitReason.SHUTDOWN, ExitReason.AUTOSCALE)


@dataclass(frozen=True)
class _Kill:
    after_ns: int
    until_ns: int


class OomKills:
    """Follows the count of OOM kills and lets deaths claim them."""

    def __init__(self, at_start: int | None = None) -> None:
        """``at_start`` is the count when the worker started; ``None`` where nothing counts."""
        self._at_start = at_start
        self._count = at_start
        self._looked_ns: int | None = None
        self._unclaimed: list[_Kill] = []

    @property
    def count(self) -> int | None:
        """The cgroup's count when it was last looked at."""
        return self._count

    @property
    def since_start(self) -> int | None:
        """OOM kills since the worker started; ``None`` where nothing counts them."""
        if self._at_start is None or self._count is None:
            return None
        return max(self._count - self._at_start, 0)

    def counted(self, count: int | None, now_ns: int) -> None:
        """The count is this now; what is more than before was killed since the last look."""
        if count is None:
            return
        if self._at_start is None:
            self._at_start = count
        # What was killed before the first look, an earlier reporter has told.
        if self._looked_ns is not None:
            risen = min(count - (self._count or 0), _UNCLAIMED_MAX)
            self._unclaimed += [_Kill(self._looked_ns, now_ns)] * risen
            del self._unclaimed[:-_UNCLAIMED_MAX]
        self._count, self._looked_ns = count, now_ns

    def claim(self, gone_ns: int) -> bool:
        """Whether a process that was gone at this time, by SIGKILL, was an OOM kill."""
        for kill in self._unclaimed:
            if kill.after_ns <= gone_ns <= kill.until_ns + CLAIM_WITHIN_NS:
                self._unclaimed.remove(kill)
                return True
        return False


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


@dataclass(frozen=True)
class Life:
    """One child's life: how many tasks it ran, for how long, and why it ended."""

    reason: str
    tasks: int
    lifetime_s: float


@dataclass(frozen=True)
class Replacement:
    """From one child's end to its successor's readiness.

    ``freed_bytes`` is RSS at the end less the successor's at its start; ``None`` if unknown.
    """

    reason: str
    gap_s: float
    freed_bytes: int | None


@dataclass(frozen=True)
class _Vacancy:
    reason: str
    since_ns: int
    rss_bytes: int | None


class Recycling:
    """Follows the children of each place in the pool."""

    def __init__(self) -> None:
        self._ups: dict[int, deque[ProcessUp]] = {}
        self._vacant: dict[int, _Vacancy] = {}

    def up(self, record: ProcessUp) -> Replacement | None:
        """A child is ready; whose place it takes, if that one's end was judged already."""
        # A roll call tells no size, and is no beginning.
        if not record.rss_bytes or not 0 <= record.slot < SLOTS_MAX:
            return None
        vacancy = self._vacant.get(record.slot)
        if vacancy is not None and record.time_ns >= vacancy.since_ns:
            del self._vacant[record.slot]
            return _replacement(vacancy, record)
        self._ups.setdefault(record.slot, deque(maxlen=_UPS_MAX)).append(record)
        return None

    def ended(self, end: ProcessEnd) -> tuple[Life | None, Replacement | None]:
        """A process's end was judged: its life, and who took its place, if that one is up."""
        process = end.process
        if process.slot is None or not 0 <= process.slot < SLOTS_MAX:
            return None, None
        down = process.down
        ended_ns = end.time_ns if down is None else down.time_ns
        life = None
        if process.up_ns is not None:
            # Who was met by a reporter that was started again has a past that is not known.
            lifetime_s = max(ended_ns - process.up_ns, 0) / 1e9
            life = Life(end.reason.value, process.tasks, lifetime_s)
        if end.reason in _NOT_REPLACED:
            return life, None
        vacancy = _Vacancy(end.reason.value, ended_ns, process.rss_bytes)
        ups = self._ups.get(process.slot, ())
        successors = [record for record in ups if record.time_ns >= ended_ns]
        if not successors:
            self._vacant[process.slot] = vacancy
            return life, None
        return life, _replacement(vacancy, successors[0])


def _replacement(vacancy: _Vacancy, successor: ProcessUp) -> Replacement:
    freed = None
    if vacancy.rss_bytes is not None:
        freed = max(vacancy.rss_bytes - successor.rss_bytes, 0)
    return Replacement(vacancy.reason, (successor.time_ns - vacancy.since_ns) / 1e9, freed)
