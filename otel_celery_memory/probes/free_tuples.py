"""How many tuples the interpreter keeps in its free lists, which `sys.getallocatedblocks` counts.

CPython keeps up to 2,000 freed tuples of each length from 1 to 19 (``Objects/tupleobject.c``). A
run of any Celery task leaves a tuple of two there: ``tuple(iterator)`` takes one of ten and cuts it
to its length, and when it is freed it goes to a list that it was not taken from. So a process seems
to keep one block a run until there are 2,000, and begins again with each full collection, which
empties the lists. And a task that keeps a tuple takes it from there, and seems to keep nothing. Who
compares two counts of blocks takes the free ones off each.

The interpreter tells nobody how long the lists are. But a new tuple comes out of its list while
there is one, and only one from the allocator is counted for the collector (``gc.get_count``). So
as many are made as there were before, and more until one comes from the allocator: 25 ns a tuple.
They are freed at once, into the list. What came from the allocator to find its end is then taken
out once more and given back, so that the list does not get longer with each count.
"""

from __future__ import annotations

import gc
from array import array
from collections import deque
from collections.abc import Iterator
from itertools import repeat

LENGTHS = range(1, 20)
LIST_MAX = 2_000
_SPARE_LENGTHS = 3
"""The collector's count comes in a tuple of three, arguments in one of one or two."""


class _Outgrowing:
    """A tuple made of it is taken from the list of one length, and outgrows all of the lists."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._longer = [None] * (LENGTHS.stop + 2)

    def __length_hint__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[None]:
        return iter(self._longer)


class FreeTuples:
    """The free lists of tuples of this process. What it needs is made when it begins."""

    def __init__(self) -> None:
        self._patterns = [[None] * length for length in LENGTHS]
        self._outgrowing = [_Outgrowing(length) for length in LENGTHS]
        self._known = array("q", [0] * len(LENGTHS))
        """How many there were after the last count, by length."""
        self._taken: deque[object] = deque()
        self._spare: deque[object] = deque()
        """What this code itself needs of tuples while a list is empty."""
        self._take_spare()

    def count(self) -> int:
        """How many tuples are in the lists when this has returned."""
        # A collection in the middle would empty the lists, and set the collector's count to zero.
        enabled = gc.isenabled()
        gc.disable()
        try:
            total = 0
            for at in range(len(LENGTHS)):
                total += self._length(at)
            return total
        finally:
            if enabled:
                gc.enable()

    def _length(self, at: int) -> int:
        known = self._known[at]
        # No call here packs its arguments in a tuple: the list of those may be empty.
        wanted = known + 1 if known < LIST_MAX else LIST_MAX
        found, step = 0, 1
        try:
            while True:
                new = self._from_allocator(at, wanted)
                found += wanted
                if new or found >= LIST_MAX:
                    break
                wanted = step if step < LIST_MAX - found else LIST_MAX - found
                step *= 2
        finally:
            self._taken.clear()
        # Where there were fewer than before, there are as many as before from now on.
        length = found - new if found - new > known else known
        for _ in repeat(None, found - length):
            tuple(self._outgrowing[at])
        self._known[at] = length
        return length

    def _from_allocator(self, at: int, count: int) -> int:
        """Makes so many tuples; how many of them were not in the list."""
        if at >= _SPARE_LENGTHS:
            tuples = map(tuple, repeat(self._patterns[at], count))
            before = gc.get_count()[0]
            self._taken.extend(tuples)
            return gc.get_count()[0] - before
        self._spare.clear()
        tuples = map(tuple, repeat(self._patterns[at], count))
        before = gc.get_count()[0]
        self._take_spare()
        self._taken.extend(tuples)
        self._spare.clear()
        after = gc.get_count()[0]
        self._take_spare()
        return after - before

    def _take_spare(self) -> None:
        for pattern in self._patterns[:_SPARE_LENGTHS]:
            self._spare.append(tuple(pattern))
            self._spare.append(tuple(pattern))
