"""A line in the worker's log when something leaks, and one when that ends.

A suspicion is no line: it may be a cache that fills up. Nor is a verdict that changes while it
stands, as its numbers do all the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from otel_celery_memory.ipc.records import printable
from otel_celery_memory.leaks import words
from otel_celery_memory.leaks.verdict import State, Verdict

logger = logging.getLogger(__name__)

LEAKS_MAX = 200
"""Most leaks whose end is logged; of more than that, the oldest ones end without a line."""


class LeakLog:
    """Logs the verdicts of a worker as they begin and end; called by one thread at a time."""

    def __init__(
        self, log: Callable[[str], None] = lambda line: logger.warning("%s", line)
    ) -> None:
        self._log = log
        self._logged: dict[tuple[str, str, str], None] = {}
        """Keys of those that have a line, the oldest first."""

    def record(self, verdict: Verdict) -> None:
        """Logs a verdict that begins to be ``leaking``, or that was and has ended."""
        known = verdict.key in self._logged
        if verdict.state == State.LEAKING and not known:
            self._logged[verdict.key] = None
            if len(self._logged) > LEAKS_MAX:
                del self._logged[next(iter(self._logged))]
        elif verdict.state == State.ENDED and known:
            del self._logged[verdict.key]
        else:
            return
        self._log(f"otel_celery_memory: {printable(words.sentences(verdict))}")

    def clear(self) -> None:
        """Forgets all of them, after a fork."""
        self._logged.clear()
