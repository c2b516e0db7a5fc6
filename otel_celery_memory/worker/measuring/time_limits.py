"""A task's time limits, and what happens when the soft one is raised in our code.

Celery logs what a receiver of a signal raises and goes on: the time limit would be lost. So it is
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
    """The worker's own limits in seconds; ``None`` where it has none."""

    hard_s: float | None = None
    soft_s: float | None = None

    def shortest_s(self, task: Any) -> float | None:
        """The limit that this run of `task` would reach first, in seconds; ``None`` for none.

        As in ``celery.worker.request``, the message's limits come before those of the task's
        class, and those before the worker's.
        """
        hard_s, soft_s = getattr(task.request, "timelimit", None) or (None, None)
        limits_s = (
            hard_s or getattr(task, "time_limit", None) or self.hard_s,
            soft_s or getattr(task, "soft_time_limit", None) or self.soft_s,
        )
        return min((limit_s for limit_s in limits_s if limit_s), default=None)


class SoftLimit:
    """The soft limit of the task that is running, and of the tasks that run inside it."""

    def __init__(self) -> None:
        self.pending: object = None
        """A token of what is still to be raised in the task; ``None``: nothing."""

    def hit(self, pid: int) -> None:
        """The limit was raised in our code and not in the task's, in this process."""
        self.pending = token = object()
        timer = Timer(_AGAIN_S, self._raise, (pid, token))
        timer.daemon = True
        timer.start()

    def ended(self) -> None:
        """The task has ended: nothing is raised any more."""
        self.pending = None

    def _raise(self, pid: int, token: object) -> None:
        if self.pending is not token or os.getpid() != pid or SIG_SOFT_TIMEOUT is None:
            return
        self.pending = None
        if callable(signal.getsignal(SIG_SOFT_TIMEOUT)):  # else it would end the process
            os.kill(pid, SIG_SOFT_TIMEOUT)
