"""Classifies how a process ended, and matches a child with its successor. Pure.

Four sources each know a part: the child's goodbye, the main process that reaped it, the main
process that enforced a time limit, and the kernel's count of OOM kills.

- The cgroup counts OOM kills without naming the victim. If the count rose at about the time when a
  process died by SIGKILL, that process claims the kill, and no other may. The count rises before
  the victim gets its signal, so it is read when the end of a pid is noticed. If the victim was
  another program, such as one that a task started, no process claims the kill and it is dropped.
- A child that gets SIGTERM says an orderly goodbye, whoever sent the signal. Only the main process
  knows whether it sent it (`ProcessExited.reason`).
- A task may end its process by itself. After ``sys.exit`` billiard's loop ends: the run has an end
  (in a state of its own, as its process ended it) and there is a goodbye with the task's exit code.
  ``os._exit`` leaves a run in flight and an exit code, which may be that of a shutdown or of
  recycling. So the run that was cut short decides, and not the code alone.

Recycling leaves a slot empty for a while and frees memory. The successor may be up before the end
of its predecessor is classified, so the two are matched by slot and time.
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
"""A killed process may disappear this much later: freeing its memory takes time."""
_UNCLAIMED_MAX = 64
EX_RECYCLE = 155
"""billiard's exit code for a child that reached a per-child limit."""
_SIGKILL, _SIGTERM = 9, 15
_CRASH_SIGNALS = frozenset((4, 6, 7, 8, 11))
"""SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV: raised by the process itself."""
_LOST = frozenset(
    (
        ExitReason.TIME_LIMIT,
        ExitReason.TERMINATED,
        ExitReason.OOM_KILL,
        ExitReason.KILLED,
        ExitReason.EXITED,
        ExitReason.CRASHED,
    )
)
_MAIN_REASONS = (ExitReason.TERMINATED.value, ExitReason.AUTOSCALE.value)
_How = tuple[ExitReason, int | None, TaskStarted | None]
"""Reason, signal, and the task that was lost."""
_UPS_MAX = 32
"""Most starts kept of a slot until the end of the first predecessor is classified."""
_NOT_REPLACED = (ExitReason.SHUTDOWN, ExitReason.AUTOSCALE)


@dataclass(frozen=True)
class _Kill:
    after_ns: int
    until_ns: int


class OomKills:
    """Follows the kernel's count of OOM kills; ends of processes claim them."""

    def __init__(self, at_start: int | None = None) -> None:
        """``at_start`` is the count when the worker started; ``None`` if the kernel has none."""
        self._at_start = at_start
        self._count = at_start
        self._read_ns: int | None = None
        self._unclaimed: list[_Kill] = []

    @property
    def count(self) -> int | None:
        """The count as it was last read."""
        return self._count

    @property
    def since_start(self) -> int | None:
        """OOM kills since the worker started; ``None`` if the kernel has no count."""
        if self._at_start is None or self._count is None:
            return None
        return max(self._count - self._at_start, 0)

    def update(self, count: int | None, now_ns: int) -> None:
        """Applies a new reading; a rise is that many kills since the reading before."""
        if count is None:
            return
        if self._at_start is None:
            self._at_start = count
        # An earlier reporter has emitted the kills before the first reading.
        if self._read_ns is not None:
            risen = min(count - (self._count or 0), _UNCLAIMED_MAX)
            self._unclaimed += [_Kill(self._read_ns, now_ns)] * risen
            del self._unclaimed[:-_UNCLAIMED_MAX]
        self._count, self._read_ns = count, now_ns

    def claim(self, gone_ns: int) -> bool:
        """Whether a process that SIGKILL ended at this time was an OOM kill; claims the kill."""
        for kill in self._unclaimed:
            if kill.after_ns <= gone_ns <= kill.until_ns + CLAIM_WITHIN_NS:
                self._unclaimed.remove(kill)
                return True
        return False


@dataclass(frozen=True)
class ProcessEnd:
    """How a process ended; ``task`` is the task that was cut short, if any."""

    process: ProcessState
    reason: ExitReason
    signal: int | None
    task: TaskStarted | None
    time_ns: int

    @property
    def exit_code(self) -> int | None:
        """The code that it ended with; ``None`` if a signal ended it, or if it is not known.

        billiard's handler of SIGTERM exits with the signal's number, if the second SIGTERM that
        billiard sends does not end the process before: that is no code of anybody's.
        """
        code = self.process.exit_code
        return code if self.signal is None and code is not None and code >= 0 else None

    @property
    def lost(self) -> bool:
        """Whether it ended otherwise than by shutdown, recycling or shrinking, or lost a task."""
        # A pool that shrinks picks idle children, but one may just have been given a task.
        shrunk = self.reason is ExitReason.AUTOSCALE and self.task is not None
        return shrunk or self.reason in _LOST


@dataclass(frozen=True)
class Worker:
    """The state of the worker as a whole when one of its processes has ended."""

    stopping: bool
    said_goodbye: bool


def classify_end(process: ProcessState, worker: Worker, overdue: bool, oom: OomKills) -> ProcessEnd:
    """Classifies the end of a process; ``overdue``: its task had reached its hard time limit."""
    assert process.gone_ns is not None
    if overdue:
        # The child sends the end of its task and begins its goodbye before the SIGKILL arrives.
        how: _How = (ExitReason.TIME_LIMIT, None, process.last)
    elif process.main_reason in _MAIN_REASONS and not worker.stopping:
        how = _ended_by_main(process)
    elif process.down is not None:
        how = _after_goodbye(process, process.down, worker)
    elif process.slot == MAIN_SLOT and worker.said_goodbye:
        how = (ExitReason.SHUTDOWN, None, None)
    else:
        how = _without_goodbye(process, process.gone_ns, worker, oom)
    return ProcessEnd(process, *how, process.gone_ns)


def _ended_by_main(process: ProcessState) -> _How:
    """The main process sent the signal; the child's handler may have sent a goodbye."""
    reason = ExitReason(process.main_reason)
    number = _signal_of(process) if reason is ExitReason.TERMINATED else None
    return reason, number, _cut_task(process)


def _after_goodbye(process: ProcessState, down: ProcessDown, worker: Worker) -> _How:
    # Nothing else is a signal here: ``sys.exit(-1)`` is a code of the task's own.
    number = _signal_of_handler(down.exit_code)
    if worker.stopping or (number is None and not process.terminated):
        return reason_of_goodbye(down), None, None
    # The goodbye looks orderly: SIGTERM from outside, or sys.exit() in the task.
    reason = ExitReason.EXITED if number is None else ExitReason.KILLED
    return reason, number, _cut_task(process)


def _without_goodbye(process: ProcessState, gone_ns: int, worker: Worker, oom: OomKills) -> _How:
    task, code = process.running, process.exit_code
    cut = _cut_task(process)
    by_itself = code is not None and code >= 0 and code != _SIGTERM
    # While the worker stops, what says that a run ended and that its process goes may be dropped.
    orderly = worker.stopping and code in (0, EX_RECYCLE)
    if by_itself and cut is not None and not orderly:
        return ExitReason.EXITED, None, cut
    reason, number = reason_of_exit_code(code)
    killed = reason is ExitReason.KILLED and number in (_SIGKILL, None)
    if killed and oom.claim(gone_ns):
        return ExitReason.OOM_KILL, _SIGKILL, task
    return reason, number, task


def _cut_task(process: ProcessState) -> TaskStarted | None:
    """The task that was cut short, whether or not its process's handler sent an end."""
    if process.terminated:
        return process.last
    return process.running


def reason_of_goodbye(down: ProcessDown) -> ExitReason:
    """The reason that a goodbye gives; an unknown one counts as shutdown."""
    try:
        return ExitReason(down.reason)
    except ValueError:
        return ExitReason.SHUTDOWN


def _signal_of(process: ProcessState) -> int | None:
    """The signal that ended it, from the exit code in its goodbye or from its own."""
    said = process.down.exit_code if process.down is not None else 0
    return signal_of_code(said) or signal_of_code(process.exit_code or 0)


def signal_of_code(exit_code: int) -> int | None:
    """The signal that a negative exit code stands for; ``None`` for other codes.

    After a kill the code is the negated signal; billiard's handler exits with the signal less 256.
    """
    return -exit_code if -128 <= exit_code < 0 else _signal_of_handler(exit_code)


def _signal_of_handler(exit_code: int) -> int | None:
    """The signal that billiard's handler got; ``None`` if the code is not the handler's."""
    return 256 + exit_code if -256 < exit_code < -128 else None


def reason_of_exit_code(exit_code: int | None) -> tuple[ExitReason, int | None]:
    """Reason and signal of an end without goodbye in no task; the exit code may be unknown."""
    if exit_code is None:
        return ExitReason.KILLED, None
    if exit_code == 0:
        return ExitReason.SHUTDOWN, None  # its goodbye was dropped
    if exit_code == EX_RECYCLE:
        return ExitReason.MAX_TASKS, None
    if exit_code == _SIGTERM:
        return ExitReason.KILLED, _SIGTERM  # billiard's handler: the kernel keeps the low 8 bits
    if exit_code > 0:
        return ExitReason.CRASHED, None
    number = signal_of_code(exit_code)
    return (ExitReason.CRASHED if number in _CRASH_SIGNALS else ExitReason.KILLED), number


@dataclass(frozen=True)
class Life:
    """One child's life: how many tasks it ran, for how long, and why it ended."""

    reason: str
    tasks: int
    lifetime_s: float


@dataclass(frozen=True)
class Replacement:
    """A child that another one replaced; ``gap_s`` is how long the slot had no ready process.

    ``freed_bytes`` is RSS at the end less the successor's RSS at its start; ``None`` if unknown.
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
    """Follows the children of each slot."""

    def __init__(self) -> None:
        self._ups: dict[int, deque[ProcessUp]] = {}
        self._vacant: dict[int, _Vacancy] = {}

    def up(self, record: ProcessUp) -> Replacement | None:
        """A child is ready: its replacement of a predecessor whose end is classified, if any."""
        # A `ProcessUp` of resync has no size; the child started earlier.
        if not record.rss_bytes or not 0 <= record.slot < SLOTS_MAX:
            return None
        vacancy = self._vacant.get(record.slot)
        if vacancy is not None and record.time_ns >= vacancy.since_ns:
            del self._vacant[record.slot]
            return _replacement(vacancy, record)
        self._ups.setdefault(record.slot, deque(maxlen=_UPS_MAX)).append(record)
        return None

    def ended(self, end: ProcessEnd) -> tuple[Life | None, Replacement | None]:
        """An end was classified: the child's life, and its replacement if the successor is up."""
        process = end.process
        if process.slot is None or not 0 <= process.slot < SLOTS_MAX:
            return None, None
        down = process.down
        ended_ns = end.time_ns if down is None else down.time_ns
        life = None
        if process.up_ns is not None:
            # A reporter that was started again does not know the start of older processes.
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
