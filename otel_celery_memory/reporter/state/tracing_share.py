"""What share of the tasks' CPU time tracing cost in the last ten minutes."""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_S = 600.0
_SPACING_S = 10.0


class TracingShare:
    """Looks at totals now and then, and tells their change over the window."""

    def __init__(
        self,
        totals: Callable[[], tuple[float, float]],
        clock_s: Callable[[], float] = time.monotonic,
        *,
        from_zero: bool = False,
    ) -> None:
        """``from_zero``: what the totals are now has been added since the worker started, lately.

        A reporter takes a second to start, in which tasks run.
        """
        self._totals = totals
        self._clock_s = clock_s
        # Replaced and never changed: the thread that exports asks too.
        self._seen: tuple[tuple[float, float, float], ...] = (
            (clock_s(), *((0.0, 0.0) if from_zero else totals())),
        )

    def share(self) -> float | None:
        """Seconds of tracing in a second of task time; ``None`` where no task ran."""
        task_s, spent_s = self.seconds()
        return spent_s / task_s if task_s else None

    def seconds(self) -> tuple[float, float]:
        """Task time, and what tracing cost, in the window; both 0 where no task ran."""
        now_s = self._clock_s()
        task_s, spent_s = self._totals()
        seen = self._seen
        while len(seen) > 1 and now_s - seen[1][0] >= WINDOW_S:
            seen = seen[1:]
        _, task_before_s, spent_before_s = seen[0]
        if now_s - seen[-1][0] >= _SPACING_S:
            seen = (*seen, (now_s, task_s, spent_s))
        self._seen = seen
        if task_s <= task_before_s:
            return 0.0, 0.0
        return task_s - task_before_s, max(spent_s - spent_before_s, 0.0)
