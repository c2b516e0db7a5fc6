"""How often remote commands are obeyed: some at once, then so many a second."""

from __future__ import annotations

import time
from collections.abc import Callable

COMMANDS_AT_ONCE = 20
COMMANDS_PER_S = 2.0
"""An answer costs the main process's event loop a millisecond or so: at this rate nothing."""


class Rate:
    """Lets `at_once` things pass, and from then on `per_s`; what it refuses costs nothing later."""

    def __init__(
        self,
        at_once: int = COMMANDS_AT_ONCE,
        per_s: float = COMMANDS_PER_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_once = at_once
        self._per_s = per_s
        self._clock_s = clock_s
        self._left = float(at_once)
        self._asked_s = clock_s()

    def allows(self) -> bool:
        """Whether one more may pass now."""
        now_s = self._clock_s()
        passed = max(now_s - self._asked_s, 0.0) * self._per_s
        self._left = min(self._left + passed, float(self._at_once))
        self._asked_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
