"""How many tuples the interpreter keeps in its free lists, which `sys.getallocatedblocks` counts.

CPython keeps up to 2,000 freed tuples of each length from 1 to 19 (``Objects/tupleobject.c``). A
run of any Celery task leaves a tuple of two there: ``tuple(iterator)`` takes one of ten and cuts it
to its length, and when it is freed it goes to a list that it was not taken from. So a process seems
to keep one block a run until there are 2,000, and begins again with each full collection, which
empties the lists. And a task that keeps a tuple takes it from there, and seems to keep nothing. Who
compares two counts of blocks takes the free ones off each.

The interpreter has their numbers in its state (``numfree``) and tells nobody. So its state is
searched for 19 numbers in a row that change as tuples of these lengths are freed, and they are read
from then on: `numbers_of_interpreter`. Where they are not found, as in CPython 3.14, which has them
in another way, tuples are counted by making them: `FreeTuples`.

For that: a new tuple comes out of its list while there is one, and only one from the allocator is
counted for the collector (``gc.get_count``). So as many are made as there were before, and more
until one comes from the allocator, and are freed at once, into the list: 25 ns a tuple, ten times
as much where they are scattered over memory that no cache has. So the lists are kept short: some
tuples are taken out at each count, and given back to the allocator.
"""

from __future__ import annotations

import ctypes
import gc
import operator
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

LENGTHS = range(1, 20)
LIST_MAX = 2_000
KEPT = 10
"""A list of more is made shorter."""
_GIVEN_BACK_MOST = 500
"""Of all lists at once: 0.15 ms."""
_SPARE_LENGTHS = 3
"""The collector's count comes in a tuple of three, arguments in one of one or two."""
_SEARCHED_BYTES = (16 << 10, 512 << 10)
"""Of the interpreter's state: in CPython 3.12 they are after 270,000 bytes, else before 12,000."""
_PAGE = 1024
"""So many numbers at once are compared."""
_PROBE = (2, 3, 5)
"""How many of each of the three greatest lengths are freed to find them."""
_PROBE_TIMES = 3
"""Another thread may free some meanwhile."""


def free_tuples(memory: Path = Path("/proc/self/mem")) -> Callable[[], int]:
    """A function that says how many tuples are in the lists of this process and its forks."""
    numbers = numbers_of_interpreter(memory)
    if numbers is None:
        return FreeTuples().count
    return lambda: sum(numbers)


def numbers_of_interpreter(memory: Path) -> ctypes.Array[ctypes.c_int] | None:
    """The interpreter's own numbers of free tuples by length; ``None`` where they are not found.

    It is a view of the interpreter's state, found by reading ``memory``, where a wrong address is
    an error and no crash, and tried with each length.
    """
    try:
        function = ctypes.pythonapi.PyInterpreterState_Get
        descriptor = os.open(memory, os.O_RDONLY | os.O_CLOEXEC)
    except (AttributeError, OSError):
        return None
    function.restype, function.argtypes = ctypes.c_void_p, []
    state = function()
    try:
        for size_bytes in _SEARCHED_BYTES * _PROBE_TIMES:
            first = _where_they_follow(partial(_read, descriptor, state, size_bytes))
            if first is not None:
                at = state + first * ctypes.sizeof(ctypes.c_int)
                numbers = (ctypes.c_int * len(LENGTHS)).from_address(at)
                return numbers if all(map(_follows, LENGTHS, repeat(numbers))) else None
    finally:
        os.close(descriptor)
    return None


def _read(descriptor: int, address: int, size_bytes: int) -> array[int]:
    """What can be read from there on, as numbers."""
    numbers = array("i")
    try:
        part = os.pread(descriptor, size_bytes, address)
    except OSError:  # nothing is mapped there
        part = b""
    numbers.frombytes(part[: len(part) // numbers.itemsize * numbers.itemsize])
    return numbers


def _where_they_follow(read: Callable[[], array[int]]) -> int | None:
    """At which number they begin whose last ones change as tuples of those lengths are freed."""
    lengths = LENGTHS[-len(_PROBE) :]
    kept = [[(None,) * length for _ in range(n)] for length, n in zip(lengths, _PROBE, strict=True)]
    before = read()
    kept.clear()
    after = read()
    first, second, third = _PROBE
    found = []
    for page in range(0, min(len(before), len(after)), _PAGE):
        then, now = before[page : page + _PAGE + 2], after[page : page + _PAGE + 2]
        if then == now:
            continue
        changes = list(map(operator.sub, now, then))
        found += [
            page + at
            for at in range(len(changes) - 2)
            if changes[at] == first and changes[at + 1] == second and changes[at + 2] == third
        ]
    shorter = len(LENGTHS) - len(_PROBE)
    return found[0] - shorter if len(found) == 1 and found[0] >= shorter else None


def _follows(length: int, numbers: ctypes.Array[ctypes.c_int]) -> bool:
    """Whether the number of this length goes up as tuples of it are freed."""
    at = length - LENGTHS.start
    pattern = [None] * length
    for _ in range(_PROBE_TIMES):
        kept = [tuple(pattern) for _ in range(5)]
        before = numbers[at]
        kept.clear()
        if numbers[at] - before == 5:
            return True
    return False


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
            total, most = 0, _GIVEN_BACK_MOST
            for at in range(len(LENGTHS)):
                found = self._found(at)
                given_back = min(max(found - KEPT, 0), most)
                for _ in repeat(None, given_back):
                    tuple(self._outgrowing[at])
                most -= given_back
                self._known[at] = found - given_back
                total += found - given_back
            return total
        finally:
            if enabled:
                gc.enable()

    def _found(self, at: int) -> int:
        """How many are in one list, with those that were made to find its end."""
        known = self._known[at]
        # No call here packs its arguments in a tuple: the list of those may be empty.
        wanted = known + 1 if known < LIST_MAX else LIST_MAX
        made, step = 0, 1
        try:
            while True:
                new = self._from_allocator(at, wanted)
                made += wanted
                if new or made >= LIST_MAX:
                    return made
                wanted = step if step < LIST_MAX - made else LIST_MAX - made
                step *= 2
        finally:
            self._taken.clear()

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
