"""A soft time limit that strikes in our code is raised once more, in the task.

Celery would log what comes out of a signal's receiver and go on, and the limit be lost.
"""

from __future__ import annotations

import os
import signal
from threading import Timer

from billiard.pool import SIG_SOFT_TIMEOUT

_AGAIN_S = 0.05


class SoftLimit:
    """The limit of the task that is running."""

    def __init__(self) -> None:
        self.task_id = ""
        """The task whose limit is to be raised; emptied when it has ended."""

    def struck(self, pid: int, task_id: str) -> None:
        """The limit hit us and not the task, in this process."""
        self.task_id = task_id
        timer = Timer(_AGAIN_S, self._raise, (pid, task_id))
        timer.daemon = True
        timer.start()

    def _raise(self, pid: int, task_id: str) -> None:
        if self.task_id != task_id or os.getpid() != pid or SIG_SOFT_TIMEOUT is None:
            return
        if callable(signal.getsignal(SIG_SOFT_TIMEOUT)):  # else it would end the process
            os.kill(pid, SIG_SOFT_TIMEOUT)
