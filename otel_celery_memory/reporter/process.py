"""One process of a worker as its reporter knows it, and how it ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_celery_memory.records import ExitReason, HeapSampled, ProcessDown, TaskStarted

JUDGE_AFTER_NS = 1_000_000_000
"""How long all sides have to speak of a process that is gone."""
EX_RECYCLE = 155
"""billiard's exit code of a child that reached a per-child limit."""
GIVE_UP_AFTER_NS = 6_000_000_000
"""How long to wait for the main process, which reaps a child when it gets to it."""
_CRASH_SIGNALS = frozenset((4, 6, 7, 8, 11))
"""SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV: the process's own doing."""


@dataclass
class ProcessState:
    """One process of the worker."""

    pid: int
    slot: int | None
    """``None`` until it is told: the first record that was read may be of a task."""
    rss_bytes: int | None = None
    rss_peak_bytes: int | None = None
    in_flight: list[TaskStarted] = field(default_factory=list)
    last: TaskStarted | None = None
    heap: HeapSampled | None = None
    down: ProcessDown | None = None
    terminated: bool = False
    """Whether its last task did not end by itself."""
    exit_code: int | None = None
    gone_ns: int | None = None

    def saw_rss(self, rss_bytes: int) -> None:
        """Note a value of RSS, from a record or from outside."""
        self.rss_bytes = rss_bytes
        self.rss_peak_bytes = max(self.rss_peak_bytes or 0, rss_bytes)

    @property
    def judge_after_ns(self) -> int:
        """How long after it was gone its end is judged."""
        told = self.down is not None or self.exit_code is not None
        return JUDGE_AFTER_NS if told else GIVE_UP_AFTER_NS


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
        """Whether it ended otherwise than by shutdown or recycling."""
        return self.reason in (ExitReason.KILLED, ExitReason.CRASHED, ExitReason.TIME_LIMIT)


def announced(down: ProcessDown) -> ExitReason:
    """The reason a process gave; one that we do not know is an orderly end all the same."""
    try:
        return ExitReason(down.reason)
    except ValueError:
        return ExitReason.SHUTDOWN


def terminated(exit_code: int) -> tuple[ExitReason, int | None]:
    """Reason and signal where a task was ended with its process, by the code of its goodbye.

    billiard's handler of a signal exits with 256 less, as a negative number.
    """
    if -256 < exit_code < 0:
        return ExitReason.KILLED, 256 + exit_code
    return ExitReason.CRASHED, None


def unannounced(exit_code: int | None) -> tuple[ExitReason, int | None]:
    """Reason and signal of an end without goodbye, by the exit code, if it is known."""
    if exit_code is None:
        return ExitReason.KILLED, None
    if exit_code == 0:
        return ExitReason.SHUTDOWN, None  # its goodbye was dropped
    if exit_code == EX_RECYCLE:
        return ExitReason.MAX_TASKS, None
    if exit_code > 0:
        return ExitReason.CRASHED, None
    crashed = -exit_code in _CRASH_SIGNALS
    return (ExitReason.CRASHED if crashed else ExitReason.KILLED), -exit_code
