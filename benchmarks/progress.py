"""How far a benchmark is, on the error stream: figures alone go to the other one."""

from __future__ import annotations

import sys
import time


class Progress:
    """Says what is being done, and since when."""

    def __init__(self, steps: int = 0, silent: bool = False) -> None:
        self._began_s, self._steps, self._done = time.monotonic(), steps, 0
        self._silent = silent

    def step(self, what: str) -> None:
        """One more of the steps begins."""
        self._done += 1
        self.say(what)

    def say(self, what: str) -> None:
        """What is being done now."""
        if self._silent:
            return
        passed_s = int(time.monotonic() - self._began_s)
        of_all = f" {min(self._done, self._steps)}/{self._steps}" if self._steps else ""
        print(
            f"[{passed_s // 60:2}:{passed_s % 60:02}{of_all}] {what}", file=sys.stderr, flush=True
        )
