"""Ctrl-C and similar signals, checked at chosen points only, so that nothing is left behind.

An exception out of a signal handler could strike between the start of a process and the note that
it has to be ended.
"""

from __future__ import annotations

import signal
import time
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.05


class Interrupted(Exception):  # noqa: N818 - it is no error
    """A signal asks the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interruption:
    """Notes the first signal that asks the demo to end."""

    def __init__(self) -> None:
        self._number: int | None = None
        for number in _SIGNALS:
            # A signal that was ignored at the start, as with nohup, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._number is None:
            self._number = number

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self._number is not None:
            raise Interrupted(self._number)

    def sleep(self, seconds: float) -> None:
        """Wait; raise `Interrupted` as soon as a signal has come."""
        until_s = time.monotonic() + seconds
        self.check()
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _POLL_S))
            self.check()
