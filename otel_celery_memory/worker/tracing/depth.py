"""How many frames of each stack a window keeps: enough for the user's line, and no more."""

from __future__ import annotations

WINDOW_FRAMES = 5
"""Frames that a window within the budget keeps at least: enough for most users' own lines. A run
takes 2.2 times as long with one frame, 4.2 times with five and 8 times with twelve."""
OVERLAPPING_FRAMES = 1
"""The same where runs overlap. All that the process does is traced then, such as a connection for
each greenlet: that takes 4 times as long with one frame, 6 times with two, 14 to 17 with three to
five, and with those what may be spent at once is spent before enough runs have ended."""
DEEP_FRAMES = 16
"""Frames that are kept where fewer did not reach the user's line."""


class Depth:
    """How many frames of each stack windows keep, of runs that overlap or of others."""

    def __init__(self, least: int, most: int, before: int = 0) -> None:
        """``before``: how many the process before in this slot kept in the end, if it is known."""
        self._least, self._most = least, max(least, most)
        self.frames = min(max(before, self._least), self._most)

    def too_shallow(self) -> None:
        """Fewer frames did not reach the user's line."""
        self.frames = self._most

    @property
    def is_deep(self) -> bool:
        """Whether fewer could be kept."""
        return self.frames > self._least

    @property
    def may_be_deeper(self) -> bool:
        """Whether more could be kept."""
        return self.frames < self._most

    def too_slow(self) -> None:
        """They leave room for too few runs: from now on, as few as possible are kept."""
        self.frames = self._most = self._least
