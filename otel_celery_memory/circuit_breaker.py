"""What becomes of a part that raises: told once, tried again, and switched off if it goes on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

logger = logging.getLogger(__name__)

TRIES = 3
"""So often in a row a part raises before it is switched off: a file may be missing for a moment."""


class Containment:
    """Runs the parts of one process; nothing that one does wrong ends the others."""

    def __init__(
        self,
        indispensable: tuple[str, ...] = (),
        told: Callable[[str], None] = lambda part: None,
    ) -> None:
        """``indispensable`` parts are said to be off as well, and go on: without them nothing does.

        ``told`` is called once with each part that is switched off.
        """
        self._indispensable = indispensable
        self._told = told
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
            self._told(part)
