"""Parts of a process's recording that failed: each is logged once, and off from then on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

TELL_AGAIN_S = 30.0


class Switches:
    """Parts are on until they are switched off."""

    def __init__(self, tell: Callable[[str], None] = lambda part: None) -> None:
        """``tell`` is told of each part that is off."""
        self._off: set[str] = set()
        self._tell = tell
        self._told_s = 0.0

    def switch_off(self, part: str) -> None:
        """A part failed; called while its exception is handled."""
        if part not in self._off:
            self._off.add(part)
            logger.exception("otel_celery_memory: %s failed and is switched off", part)
            self.tell()

    def tell_again(self) -> None:
        """Now and then: a frame may have been dropped, or a reporter have died."""
        if self._off and time.monotonic() - self._told_s > TELL_AGAIN_S:
            self.tell()

    def tell(self) -> None:
        """Tell of all that is off."""
        self._told_s = time.monotonic()
        for part in self.off():
            self._tell(part)

    def is_off(self, part: str) -> bool:
        """Whether it failed."""
        return part in self._off

    def off(self) -> list[str]:
        """All that failed."""
        return sorted(self._off)
