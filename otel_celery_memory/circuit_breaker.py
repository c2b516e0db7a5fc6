"""A part that raises is logged once and switched off, at once or after some failures in a row."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

logger = logging.getLogger(__name__)

TRIES = 3
"""A part is switched off when it fails so often in a row: a file may be missing for a moment."""
REPORT_AGAIN_S = 30.0


class CircuitBreaker:
    """Runs the parts of one process: a failure of one part does not stop the others."""

    def __init__(
        self,
        indispensable: tuple[str, ...] = (),
        on_switched_off: Callable[[str], None] = lambda part: None,
    ) -> None:
        """``indispensable`` parts go on after failures, because nothing works without them.

        They are reported as switched off all the same. ``on_switched_off`` is called once with each
        part that is switched off.
        """
        self._indispensable = indispensable
        self._on_switched_off = on_switched_off
        self._failures: Counter[str] = Counter()
        self._logged: set[str] = set()
        self._off: set[str] = set()

    def run(self, part: str, function: Callable[..., None], *arguments: object) -> None:
        """Calls `function` for a part unless the part is switched off; never raises."""
        if part in self._off and part not in self._indispensable:
            return
        try:
            function(*arguments)
        except Exception:
            self._failed(part)
        else:
            if self._failures:
                self._failures.pop(part, None)

    def switched_off(self) -> list[str]:
        """The parts that failed `TRIES` times in a row, sorted."""
        return sorted(self._off)

    def _failed(self, part: str) -> None:
        if part not in self._logged:
            self._logged.add(part)
            logger.exception("otel_celery_memory: %s failed; further failures are not logged", part)
        self._failures[part] += 1
        if self._failures[part] >= TRIES and part not in self._off:
            self._off.add(part)
            logger.error("otel_celery_memory: %s failed again and is switched off", part)
            self._on_switched_off(part)


class PartSwitches:
    """The parts of a process that are switched off at their first failure."""

    def __init__(self, report: Callable[[str], None] = lambda part: None) -> None:
        """``report`` is called with each part that is switched off."""
        self._off: set[str] = set()
        self._report = report
        self._reported_s = 0.0

    def switch_off(self, part: str) -> None:
        """Switches off a part that failed; to be called while its exception is handled."""
        if part not in self._off:
            self._off.add(part)
            logger.exception("otel_celery_memory: %s failed and is switched off", part)
            self.report()

    def report_again(self) -> None:
        """Reports again every `REPORT_AGAIN_S`: a frame may be dropped, a reporter be restarted."""
        if self._off and time.monotonic() - self._reported_s > REPORT_AGAIN_S:
            self.report()

    def report(self) -> None:
        """Reports all parts that are switched off."""
        self._reported_s = time.monotonic()
        for part in self.switched_off():
            self._report(part)

    def report_of(self, part: str) -> None:
        """Reports a part that does nothing any more, though it has not failed."""
        self._report(part)

    def is_off(self, part: str) -> bool:
        """Whether this part is switched off."""
        return part in self._off

    def switched_off(self) -> list[str]:
        """All parts that are switched off, sorted."""
        return sorted(self._off)
