"""The processes that a worker has lost lately: how often by one message, and a line in its log.

A message that the broker delivers again may kill one process after the other. Its losses are
counted by the task's id, and are one row in ``inspect memory`` and at most one line a minute in the
worker's log, with the count. Losses without a task, of children that die as they start, are put
together by their reason.

The reporter writes the lines, to where the worker's main process logs (`service.py`). So the main
process, which runs an event loop, waits for nothing, and there is a line when it is lost itself.
Counts begin anew with each reporter, but for the messages that run when a whole worker is killed
(`last_state.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from otel_celery_memory.telemetry.events import LostProcess

logger = logging.getLogger(__name__)

LOG_AGAIN_S = 60.0
"""Least time between two lines of one message."""
MESSAGES_MAX = 1_000
SHOWN = 10


@dataclass
class _Repetition:
    """Losses by one message: the latest of them, how many there are, how many the log has."""

    lost: LostProcess
    time_ns: int
    count: int = 0
    logged: int = 0
    logged_s: float = float("-inf")


class Losses:
    """Counts the losses of a worker and logs them; called by one thread at a time."""

    def __init__(
        self,
        log: Callable[[str], None] = lambda line: logger.error("%s", line),
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._clock_s = clock_s
        self._known: dict[str, _Repetition] = {}
        """By task id or reason, the latest last."""

    def times(self, task_id: str) -> int:
        """How many processes were lost in runs of this message."""
        known = self._known.get(_key(task_id))
        return 0 if known is None else known.count

    def record(self, lost: LostProcess, time_ns: int) -> LostProcess:
        """Counts and logs a loss; returns it with the count of its message.

        A loss that comes with a count, from a reporter before, is counted on from there.
        """
        task_id = lost.process.task_id
        main = lost.process.slot == "main"
        key = f"{main} {lost.reason}" if task_id is None else _key(task_id)
        before = (lost.repeated or 1) - 1
        known = self._known.pop(key, None) or _Repetition(lost, time_ns, before, before)
        known.count += 1
        known.lost = replace(lost, repeated=None if task_id is None else known.count)
        known.time_ns = time_ns
        self._known[key] = known
        self._log_if_due(known)
        if len(self._known) > MESSAGES_MAX:
            self._log_rest(self._known.pop(next(iter(self._known))))
        return known.lost

    def log_held_back(self, *, all_now: bool = False) -> None:
        """Logs what was held back because its message had a line less than a minute ago."""
        for known in self._known.values():
            if all_now:
                self._log_rest(known)
            else:
                self._log_if_due(known)

    def clear(self) -> None:
        """Forgets all of them, after a fork."""
        self._known.clear()

    def view(self, now_ns: int) -> list[dict[str, Any]]:
        """The last of them for ``inspect memory``, the latest first."""
        return [_row(known, now_ns) for known in list(self._known.values())[: -SHOWN - 1 : -1]]

    def _log_if_due(self, known: _Repetition) -> None:
        if self._clock_s() - known.logged_s >= LOG_AGAIN_S:
            self._log_rest(known)

    def _log_rest(self, known: _Repetition) -> None:
        if known.count == known.logged:
            return
        others = known.count - known.logged - 1
        more = f"; {others:,} more like it since the line before" if others else ""
        known.logged, known.logged_s = known.count, self._clock_s()
        self._log(f"otel_celery_memory: {known.lost.sentence}{more}")


def _key(task_id: str) -> str:
    return f"id {task_id}"


def _row(known: _Repetition, now_ns: int) -> dict[str, Any]:
    lost, process = known.lost, known.lost.process
    return {
        "age_seconds": max(round((now_ns - known.time_ns) / 1e9), 0),
        "slot": process.slot,
        "pid": process.pid,
        "task": process.task,
        "task_id": process.task_id,
        "reason": lost.reason,
        "signal": lost.signal,
        "exit_code": lost.exit_code,
        "rss": process.rss_bytes,
        "run_peak": lost.task_rss_peak_bytes,
        "redelivered": lost.redelivered,
        "times": known.count,
    }
