"""A task's time limits, as its message, its class or the worker set them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
