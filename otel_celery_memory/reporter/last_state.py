"""A worker that was killed with its reporter: what the next start finds, and what it tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from otel_celery_memory.ipc.records import MAIN_SLOT, ExitReason, slot_name
from otel_celery_memory.reporter.ledger import PROCESSES_MAX, KnownProcess, KnownWorker, Ledger
from otel_celery_memory.reporter.state.worker_state import WorkerState
from otel_celery_memory.telemetry.events import LostProcess, ProcessSnapshot

_SIGKILL = 9


class NoMemoirs:
    """Where the user named no directory."""

    def found(self, oom_kills: int | None) -> list[tuple[LostProcess, int]]:
        """Nothing is ever found."""
        return []

    def note(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Nothing is there."""


class Memoirs(NoMemoirs):
    """Writes down what is known of a worker, and reads what an earlier one left."""

    def __init__(
        self,
        ledger: Ledger,
        state: WorkerState,
        main: tuple[int, int | None],
        cgroup: str,
        started_of: Callable[[int], int | None],
    ) -> None:
        """``main`` is the main process's pid and start; ``started_of`` tells any process's."""
        self._ledger = ledger
        self._state = state
        self._main = main
        self._cgroup = cgroup
        self._started_of = started_of

    def found(self, oom_kills: int | None) -> list[tuple[LostProcess, int]]:
        """Processes of an earlier worker that nobody has told of, with the time they were seen."""
        known = self._ledger.read()
        if known is None or self._started_of(known.main_pid) == known.main_started:
            return []  # there still: two workers of one name
        same = known.cgroup != "" and known.cgroup == self._cgroup
        kills = None
        if same and oom_kills is not None and known.oom_kills is not None:
            kills = max(oom_kills - known.oom_kills, 0)
        return [
            (_lost(process, known.time_ns, at < (kills or 0), kills), known.time_ns)
            for at, process in enumerate(sorted(known.processes, key=_first_the_victim))
        ]

    def note(self) -> None:
        """Write down how things are now."""
        pid, started = self._main
        self._ledger.write(
            KnownWorker(
                time_ns=time.time_ns(),
                main_pid=pid,
                main_started=started or 0,
                cgroup=self._cgroup,
                oom_kills=self._state.oom.count,
                processes=tuple(
                    KnownProcess(
                        process.slot,
                        process.pid,
                        process.rss_bytes,
                        process.rss_peak_bytes,
                        *((task.task, task.task_id) if task else (None, None)),
                        *((task.time_ns, task.rss_bytes or None) if task else (None, None)),
                    )
                    for process in islice(self._state.processes.values(), PROCESSES_MAX)
                    if process.down is None
                    for task in (process.running,)
                ),
            )
        )

    def close(self) -> None:
        """All that is known has been told."""
        self._ledger.remove()


def _first_the_victim(process: KnownProcess) -> tuple[bool, int]:
    """The main process's death is why its children died; else the kernel prefers the largest."""
    return process.slot != MAIN_SLOT, -(process.rss_bytes or 0)


def _lost(process: KnownProcess, seen_ns: int, oom: bool, oom_kills: int | None) -> LostProcess:
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
    return LostProcess(snapshot, reason.value, _SIGKILL if oom else None, oom_kills, told_late=True)
