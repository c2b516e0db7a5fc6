"""What share of the tasks' CPU time tracing cost in the last ten minutes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 600.0
_SPACING_S = 10.0


class TracingShare:
    """Looks at totals now and then, and tells their change over the window."""

    def __init__(
        self,
        totals: Callable[[], tuple[float, float]],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._totals = totals
        self._clock_s = clock_s
        self._seen: deque[tuple[float, float, float]] = deque([(clock_s(), *totals())])

    def share(self) -> float | None:
        """Seconds of tracing in a second of task time; ``None`` where no task ran."""
        now_s = self._clock_s()
        task_s, spent_s = self._totals()
        while len(self._seen) > 1 and now_s - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        _, task_before_s, spent_before_s = self._seen[0]
        if now_s - self._seen[-1][0] >= _SPACING_S:
            self._seen.append((now_s, task_s, spent_s))
        if task_s <= task_before_s:
            return None
        return max(spent_s - spent_before_s, 0.0) / (task_s - task_before_s)
