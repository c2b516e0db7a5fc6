"""A task's time limits, and what happens when the soft one is raised in our code.

Celery logs what a receiver of a signal raises and goes on: the time limit would be lost. So it is
raised once more, in the task, by a timer of the kernel. Receivers of the user's may still run when
it expires, so it is set anew where the task's own code begins. A thread of ours would get the
interpreter when the task writes a line of log, and ``logging`` swallows what is raised there.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from billiard.pool import SIG_SOFT_TIMEOUT

from otel_celery_memory.probes.urgent_signal import SignalTimer

_AGAIN_S = 0.001
"""Some ten times what the rest of our code and Celery's take until the task goes on."""


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
        self.pending = False
        """Whether it was raised in our code in this run: it is, or was, raised again."""
        self.is_before_code = False
        """Whether the task's own code, where it is to be raised, has not begun since."""
        self._timer = SignalTimer(SIG_SOFT_TIMEOUT or 0)

    def hit(self, *, before_code: bool = False) -> None:
        """The limit was raised in our code and not in the task's: raise it again in a moment."""
        self.is_before_code = before_code
        # With the default handler the signal would end the process.
        if SIG_SOFT_TIMEOUT is not None and callable(signal.getsignal(SIG_SOFT_TIMEOUT)):
            self.pending = True
            self._timer.set(_AGAIN_S)

    def ended(self) -> None:
        """The task has ended: nothing is raised any more."""
        self.pending = self.is_before_code = False
        self._timer.cancel()
