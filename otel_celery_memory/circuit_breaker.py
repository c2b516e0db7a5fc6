"""A part that raises is logged once and switched off, at once or when it goes on raising."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

logger = logging.getLogger(__name__)

TRIES = 3
"""So often in a row a part raises before it is switched off: a file may be missing for a moment."""
REPORT_AGAIN_S = 30.0


class CircuitBreaker:
    """Runs the parts of one process; nothing that one does wrong ends the others."""

    def __init__(
        self,
        indispensable: tuple[str, ...] = (),
        on_switched_off: Callable[[str], None] = lambda part: None,
    ) -> None:
        """``indispensable`` parts are said to be off as well, and go on: without them nothing does.

        ``told`` is called once with each part that is switched off.
        """
        self._indispensable = indispensable
        self._on_switched_off = on_switched_off
        self._failures: Counter[str] = Counter()
        self._logged: set[str] = set()
        self._off: set[str] = set()

    def run(self, part: str, function: Callable[..., None], *arguments: object) -> None:
        """Have a part do something, unless it is switched off; never raises."""
        if part in self._off and part not in self._indispensable:
            return
        try:
            function(*arguments)
        except Exception:
            self._failed(part)
        else:
            self._failures.pop(part, None)

    def switched_off(self) -> list[str]:
        """The parts that raised again and again."""
        return sorted(self._off)

    def _failed(self, part: str) -> None:
        if part not in self._logged:
            self._logged.add(part)
            logger.exception("otel_celery_memory: %s failed; this is told once", part)
        self._failures[part] += 1
        if self._failures[part] >= TRIES and part not in self._off:
            self._off.add(part)
            logger.error("otel_celery_memory: %s failed again and is switched off", part)
            self._on_switched_off(part)


class PartSwitches:
    """Parts are on until they are switched off."""

    def __init__(self, report: Callable[[str], None] = lambda part: None) -> None:
        """``tell`` is told of each part that is off."""
        self._off: set[str] = set()
        self._report = report
        self._reported_s = 0.0

    def switch_off(self, part: str) -> None:
        """A part failed; called while its exception is handled."""
        if part not in self._off:
            self._off.add(part)
            logger.exception("otel_celery_memory: %s failed and is switched off", part)
            self.report()

    def report_again(self) -> None:
        """Now and then: a frame may have been dropped, or a reporter have died."""
        if self._off and time.monotonic() - self._reported_s > REPORT_AGAIN_S:
            self.report()

    def report(self) -> None:
        """Tell of all that is off."""
        self._reported_s = time.monotonic()
        for part in self.switched_off():
            self._report(part)

    def is_off(self, part: str) -> bool:
        """Whether it failed."""
        return part in self._off

    def switched_off(self) -> list[str]:
        """All that failed."""
        return sorted(self._off)
