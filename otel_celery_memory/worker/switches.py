"""Parts of a process's recording that failed: each is logged once, and off from then on."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


class Switches:
    """Parts are on until they are switched off."""

    def __init__(self) -> None:
        self._off: set[str] = set()

    def switch_off(self, part: str) -> None:
        """A part failed; called while its exception is handled."""
        if part not in self._off:
            self._off.add(part)
            logger.exception("otel_celery_memory: %s failed and is switched off", part)

    def is_off(self, part: str) -> bool:
        """Whether it failed."""
        return part in self._off

    def off(self) -> list[str]:
        """All that failed."""
        return sorted(self._off)
