"""Whether others of the process were at work while a run was sampled.

An export of a thread, or what is concluded where records are delivered in process, takes a hundred
kilobytes for a moment: the run that is sampled meanwhile seems to keep them, or to free them. Where
other threads have computed or something of ours was done, the sample is none. A task whose samples
are hardly ever free of that, as its own threads compute, has marked ones.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable

_COMPUTED_NS_MAX = 200_000
"""What other threads may compute during a sample: an export takes milliseconds."""
_AT_FIRST, _AFTER_ONE_WITHOUT = 8, 20
"""So many disturbed samples of a task in a row are none: of its first ones, and of those after one
that nobody has disturbed."""
_COMPUTED, _OWN_WORK = range(2)


def other_threads_ns() -> int:
    """CPU time of the other threads of this process, in nanoseconds."""
    return time.process_time_ns() - time.thread_time_ns()


class OthersAtWork:
    """Compares what others had done before the levels at a sample's start with what they have done
    after those at its end."""

    def __init__(self, computed_ns: Callable[[], int], own_work: Callable[[], int]) -> None:
        self._computed_ns, self._own_work = computed_ns, own_work
        # Arrays, as what is kept while a run is sampled must not count.
        self._noted = array("q", [0] * 2)
        self._at_start = array("q", [0] * 2)
        self._left: dict[str, int] = {}
        """How many disturbed samples of a task in a row are none."""

    def note(self) -> None:
        """Before levels are read: another thread may have its turn at any moment."""
        self._noted[_COMPUTED], self._noted[_OWN_WORK] = self._computed_ns(), self._own_work()

    def begin(self) -> None:
        """A sample begins with the levels that were read after `note`."""
        self._at_start[:] = self._noted

    def were_at_work(self) -> bool:
        """After the levels at a sample's end are read."""
        computed_ns = self._computed_ns() - self._at_start[_COMPUTED]
        return computed_ns > _COMPUTED_NS_MAX or self._own_work() != self._at_start[_OWN_WORK]

    def spoils(self, name: str, *, disturbed: bool) -> bool:
        """Whether a sample of this task is none, as it was disturbed or not."""
        left = self._left.get(name, _AT_FIRST)
        self._left[name] = max(left - 1, 0) if disturbed else _AFTER_ONE_WITHOUT
        return disturbed and left > 0
