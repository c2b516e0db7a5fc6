"""A task's time limits, and the soft one when it strikes in our code.

Celery would log what comes out of a signal's receiver and go on, and the limit be lost: it is
raised once more, in the task.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from threading import Timer
from typing import Any

from billiard.pool import SIG_SOFT_TIMEOUT

_AGAIN_S = 0.05


@dataclass(frozen=True)
class TimeLimits:
    """The worker's own limits in seconds, ``None`` where it has none."""

    hard_s: float | None = None
    soft_s: float | None = None

    def shortest_s(self, task: Any) -> float | None:
        """The limit that the run of `task` would reach first, in seconds; ``None`` for none.

        As in ``celery.worker.request``: the message's limits go before those of the task's class,
        which go before the worker's.
        """
        hard_s, soft_s = getattr(task.request, "timelimit", None) or (None, None)
        limits_s = (
            hard_s or getattr(task, "time_limit", None) or self.hard_s,
            soft_s or getattr(task, "soft_time_limit", None) or self.soft_s,
        )
        return min((limit_s for limit_s in limits_s if limit_s), default=None)


class SoftLimit:
    """The limit of the task that is running, and of those that it runs inside itself."""

    def __init__(self) -> None:
        self.pending: object = None
        """What is still to be raised, if anything is."""

    def struck(self, pid: int) -> None:
        """The limit hit us and not the task, in this process."""
        self.pending = struck = object()
        timer = Timer(_AGAIN_S, self._raise, (pid, struck))
        timer.daemon = True
        timer.start()

    def ended(self) -> None:
        """The task has ended: it is too late."""
        self.pending = None

    def _raise(self, pid: int, struck: object) -> None:
        if self.pending is not struck or os.getpid() != pid or SIG_SOFT_TIMEOUT is None:
            return
        self.pending = None
        if callable(signal.getsignal(SIG_SOFT_TIMEOUT)):  # else it would end the process
            os.kill(pid, SIG_SOFT_TIMEOUT)
