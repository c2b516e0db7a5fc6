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
