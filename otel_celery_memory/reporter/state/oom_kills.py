"""Which of the deaths by SIGKILL were the kernel's for want of memory. Pure.

The cgroup counts its OOM kills, but not of whom. A count that rose at about the time when a
process died by SIGKILL is that process's, and no other's. The victim may have been somebody else
(a program that a task started): then nobody claims it, and it is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass

CLAIM_WITHIN_NS = 10_000_000_000
"""How long after its kill a process may be seen to be gone: giving back its memory takes time."""
_UNCLAIMED_MAX = 64


@dataclass(frozen=True)
class _Kill:
    after_ns: int
    until_ns: int


class OomKills:
    """Follows the count of OOM kills and lets deaths claim them."""

    def __init__(self, at_start: int | None = None) -> None:
        """``at_start`` is the count when the worker started; ``None`` where nothing counts."""
        self._at_start = at_start
        self._count = at_start
        self._looked_ns: int | None = None
        self._unclaimed: list[_Kill] = []

    @property
    def count(self) -> int | None:
        """The cgroup's count when it was last looked at."""
        return self._count

    @property
    def since_start(self) -> int | None:
        """OOM kills since the worker started; ``None`` where nothing counts them."""
        if self._at_start is None or self._count is None:
            return None
        return max(self._count - self._at_start, 0)

    def counted(self, count: int | None, now_ns: int) -> None:
        """The count is this now; what is more than before was killed since the last look."""
        if count is None:
            return
        if self._at_start is None:
            self._at_start = count
        # What was killed before the first look, an earlier reporter has told.
        if self._looked_ns is not None:
            risen = min(count - (self._count or 0), _UNCLAIMED_MAX)
            self._unclaimed += [_Kill(self._looked_ns, now_ns)] * risen
            del self._unclaimed[:-_UNCLAIMED_MAX]
        self._count, self._looked_ns = count, now_ns

    def claim(self, gone_ns: int) -> bool:
        """Whether a process that was gone at this time, by SIGKILL, was an OOM kill."""
        for kill in self._unclaimed:
            if kill.after_ns <= gone_ns <= kill.until_ns + CLAIM_WITHIN_NS:
                self._unclaimed.remove(kill)
                return True
        return False
