"""The heaps of the interpreter and the C library: allocated blocks, malloc, free lists.

CPython's free lists look like leaks. The interpreter keeps freed tuples, lists, dictionaries,
dictionary keys and floats for reuse, up to 2,000 of a kind. To ``tracemalloc`` they are alive, at
the line that made them: a task that builds and drops 300 dictionaries seems to retain 20 to 35 KB.
So `FreeLists` empties them before traces are read. Only a full collection does that
(``clear_freelists`` in Modules/gcmodule.c), and collecting all of a worker's heap takes 16 ms. With
all objects set aside by ``gc.freeze`` it takes 0.05 ms and finds no garbage, so no finalizer runs
in the wrong thread.

But the interpreter then believes that the heap is empty, and makes a full collection itself at the
next opportunity (``long_lived_total``, ibid.; CPython 3.10 to 3.12): of two million objects it took
0.3 s, in the midst of a run, and in a child it copies what is shared with the main process. So in a
large or shared heap nothing is collected: as many objects as a free list may have are taken out of
it and kept, until it is emptied again or the window is over.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HeapReading:
    """Blocks that the interpreter has allocated; malloc's bytes in use and free, if known."""

    blocks: int
    malloc_used_bytes: int | None
    malloc_free_bytes: int | None


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def c_function(name: str, result: Any, *arguments: Any) -> Callable[..., Any] | None:
    """A function of the C library that sets `ctypes.get_errno`; ``None`` where that has none."""
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError, TypeError):
        return None
    function.restype = result
    function.argtypes = arguments
    found: Callable[..., Any] = function
    return found


READ_MOST_NS = 15_000_000
"""CPU time of a read of glibc's counters after which there is no other in its process."""


class GlibcCounters:
    """The counters of glibc's malloc, as one process and its forks may read them.

    A read visits each free chunk: with few of them it takes 0.3 us, with 100,000 it takes 7 to
    35 ms and with a million half a second, in which a run waits. Nobody can know before. So a
    process in which one has taken longer than `READ_MOST_NS` is not asked again.
    """

    def __init__(
        self,
        function: Callable[[], Any] | None = None,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._function = function
        self._cpu_ns = cpu_ns
        self.too_slow = False
        """Whether they are not read any more."""

    def read(self) -> Any:
        """`_Mallinfo2` as it is now; ``None`` where there is none, or it took too long before."""
        if self._function is None or self.too_slow:
            return None
        began_ns = self._cpu_ns()
        info = self._function()
        self.too_slow = self._cpu_ns() - began_ns > READ_MOST_NS
        return info


glibc = GlibcCounters(c_function("mallinfo2", _Mallinfo2))
"""Those of this process."""
_malloc_trim = c_function("malloc_trim", ctypes.c_int, ctypes.c_size_t)


def give_back_free_memory() -> None:
    """Return malloc's free pages to the kernel (0.1 to 0.2 ms), if the C library can."""
    if _malloc_trim is not None:
        _malloc_trim(0)


SMALL_BLOCK_BYTES = 100
"""The mean size of the blocks that the interpreter's own allocator hands out, in a Celery worker:
its arenas are mapped, so malloc does not count them, and the interpreter counts blocks alone."""
SMALL_BLOCK_MAX_BYTES = 512
"""The interpreter's own allocator hands out no larger ones: what is larger is malloc's."""
_PROBE_BYTES, _PROBE_BLOCKS = 50_000, 20
_GLIBC_TRIES = 5


InUse = Callable[[], "int | None"]
"""Returns bytes in use; ``None`` where they are not known any more."""


def malloc_in_use() -> InUse | None:
    """A function that returns the bytes in use of the malloc that this process really has.

    A preloaded allocator replaces glibc's malloc and leaves glibc's counter standing still, and a
    counter may lag. So each is tried: only one that follows a megabyte up and down is used.
    ``None`` where there is none. It belongs to the calling thread and its process.
    """
    return _first_that_follows(_jemalloc_in_use, _tcmalloc_in_use, _glibc_in_use)


@functools.cache
def _glibc_is_malloc() -> bool:
    """Whether glibc's counter is of the malloc that this process has: of a preloaded one it knows
    nothing. Another thread may disturb a try."""
    return any(_first_that_follows(_glibc_in_use) is not None for _ in range(_GLIBC_TRIES))


def _first_that_follows(
    *finds: Callable[[ctypes.CDLL], InUse],
) -> InUse | None:
    try:
        library = ctypes.CDLL(None)
        allocate, free = library.malloc, library.free
    except (AttributeError, OSError, TypeError):
        return None
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    for find in finds:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            in_use = find(library)
            if _follows(in_use, allocate, free):
                return in_use
    return None


def _follows(in_use: InUse, allocate: Any, free: Any) -> bool:
    in_use()
    before = in_use()
    blocks = [allocate(_PROBE_BYTES) for _ in range(_PROBE_BLOCKS)]
    full = in_use()
    for block in blocks:
        free(block)
    after = in_use()
    if before is None or full is None or after is None:
        return False
    size_bytes = _PROBE_BYTES * _PROBE_BLOCKS
    is_grown = size_bytes <= full - before <= 1.3 * size_bytes
    return is_grown and abs(after - before) <= 0.05 * size_bytes


def _glibc_in_use(_: ctypes.CDLL) -> InUse:
    def in_use() -> int | None:
        info = glibc.read()
        return None if info is None else int(info.uordblks + info.hblkhd)

    return in_use


def _jemalloc_in_use(library: ctypes.CDLL) -> InUse:
    """What this thread has allocated less what it freed: exact, where ``stats.allocated`` lags."""
    read = library.mallctl
    read.restype = ctypes.c_int

    def counter(name: bytes) -> ctypes.c_uint64:
        pointer, size = ctypes.c_void_p(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_void_p))
        if read(name, ctypes.byref(pointer), ctypes.byref(size), None, ctypes.c_size_t(0)):
            raise OSError(name)
        if not pointer.value:
            raise ValueError(name)
        return ctypes.c_uint64.from_address(pointer.value)

    allocated, freed = counter(b"thread.allocatedp"), counter(b"thread.deallocatedp")
    return lambda: allocated.value - freed.value


def _tcmalloc_in_use(library: ctypes.CDLL) -> InUse:
    read = library.MallocExtension_GetNumericProperty
    read.restype = ctypes.c_int
    name, found = b"generic.current_allocated_bytes", ctypes.c_size_t()
    at = ctypes.byref(found)

    def in_use() -> int:
        if not read(name, at):
            raise OSError(name)
        return found.value

    return in_use


def open_files_in_use() -> int | None:
    """How many descriptors this process has; ``None`` before Linux 6.2, where counting is slow."""
    try:
        return os.stat("/proc/self/fd").st_size or None  # noqa: PTH116  # Path costs 2 us more
    except OSError:
        return None


def threads_in_use() -> int | None:
    """How many threads this process has, as the kernel counts them."""
    try:
        # "." and "..", and a directory for each thread.
        return os.stat("/proc/self/task").st_nlink - 2  # noqa: PTH116
    except OSError:
        return None


def collector_counts() -> tuple[int, ...] | None:
    """What the garbage collector has done since the interpreter's start; it takes 1 us.

    Three numbers each, by generation: collections, objects collected, objects uncollectable. A fork
    inherits them. ``None`` where the interpreter counts otherwise.
    """
    try:
        stats = gc.get_stats()
        found = tuple(
            int(each[name])
            for name in ("collections", "collected", "uncollectable")
            for each in stats
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return found if len(found) == 9 else None


def read_heap() -> HeapReading:
    """The heap now."""
    blocks = sys.getallocatedblocks()
    info = glibc.read() if _glibc_is_malloc() else None
    if info is None:
        return HeapReading(blocks, None, None)
    # Large blocks, which malloc maps with mmap, are in hblkhd and not in uordblks.
    return HeapReading(blocks, info.uordblks + info.hblkhd, info.fordblks)


clear_type_cache: Callable[[], object] = getattr(sys, "_clear_type_cache", int)
"""Drops the names that the interpreter's cache of attribute lookups keeps alive; it takes 20 us.

The cache has 4,096 places, by the address of the name. Celery and kombu look attributes up by
names out of messages, which are new objects each time, so each run leaves half a dozen of them
there until it is full: 600 bytes a run that are nobody's leak (``Objects/typeobject.c``).
"""


_FREE_DICTS = _FREE_LISTS = 80
_FREE_FLOATS = 100


def fill_free_lists() -> None:
    """Fill the free lists of dicts, their tables of keys, lists and floats; it takes 15 us.

    An object in a free list is an allocated block. Where one task takes from a list and another one
    gives back, the first would seem to keep less than it does and the second more: of a leaked
    small dict nothing would be seen. With the lists full at each read nothing moves between them.
    Those of tuples are too long for that: 2,000 for each of twenty sizes.
    """
    _dictionaries()
    [[] for _ in range(_FREE_LISTS)]
    [number + 0.5 for number in range(_FREE_FLOATS)]


def level_caches() -> None:
    """Bring what the interpreter keeps for itself to the same level, before blocks are counted."""
    fill_free_lists()
    clear_type_cache()


class SharedHeap:
    """Whether a forked process still shares its objects with its parent.

    A full collection writes to each object, so that the kernel copies all of them: 16 MiB of a
    worker that has imported little but Celery. The interpreter makes one once a quarter of the heap
    is new, so a busy child has its copy soon, and an idle one never. We never make the first one,
    unless there is a reason to.
    """

    def __init__(self) -> None:
        self._collections_at_fork: int | None = None

    def forked(self) -> None:
        """This process has just been forked."""
        self._collections_at_fork = full_collections()

    def may_be_copied(self) -> None:
        """There is a reason to: the heap of the process grows."""
        self._collections_at_fork = None

    def is_shared(self) -> bool:
        """Whether no full collection was made since the fork, and there is no reason for one."""
        if self._collections_at_fork not in (None, full_collections()):
            self._collections_at_fork = None
        return self._collections_at_fork is not None


def is_frozen() -> bool:
    """Whether objects are frozen, by the user unless we do so at this moment."""
    return hasattr(gc, "get_freeze_count") and gc.get_freeze_count() > 0


def full_collections() -> int:
    """How many full collections there have been in this process and those it was forked from."""
    return int(gc.get_stats()[-1]["collections"])


_EMPTIED_MAX_BLOCKS = 400_000
"""Of a larger heap, the full collection that follows would hold a run for more than 30 ms."""
_TUPLE_LENGTHS, _TUPLES = range(1, 20), 20


def _out_of_free_lists() -> list[object]:
    """As many objects as the free lists may have; of tuples the first ones, as there may be 40,000.

    To ``tracemalloc`` an object that comes out of one is made here, but the table of keys of a
    dictionary is where it was: it has to be freed, which it is where the list is full.
    """
    taken, new = _dictionaries(), _dictionaries()
    del new
    del taken
    return [
        *_dictionaries(),
        *([] for _ in range(_FREE_LISTS)),
        *(number + 0.5 for number in range(_FREE_FLOATS)),
        *((None,) * length for length in _TUPLE_LENGTHS for _ in range(_TUPLES)),
    ]


def _dictionaries() -> list[dict[str, None]]:
    return [{"": None} for _ in range(_FREE_DICTS)]


class FreeLists:
    """The free lists of one process, and its cache of attribute lookups."""

    def __init__(self, shared: SharedHeap | None = None) -> None:
        self.shared_heap = shared or SharedHeap()
        self.takes_out: bool | None = None
        """Whether objects are taken out of them and kept, instead of a collection. It is decided
        anew after `give_back`: levels before and after a change could not be compared."""
        self._taken_out: list[object] = []
        self._taken_out_bytes: int | None = None
        self.frozen_by_user = False
        """Whether the user's code was seen to have frozen objects."""
        self.clears = 0
        """How many full collections were made to empty them; they collect nothing else."""

    def clear(self) -> None:
        """Empty them, or where the heap is shared or large keep some of what they have."""
        clear_type_cache()
        if self.takes_out is None:
            # A heap that the user has frozen is not to be unfrozen: that would copy it.
            self.frozen_by_user = self.frozen_by_user or is_frozen()
            is_large = sys.getallocatedblocks() > _EMPTIED_MAX_BLOCKS
            self.takes_out = self.shared_heap.is_shared() or is_large
        if self.takes_out:
            self._taken_out, self._taken_out_bytes = [], None
            self._taken_out = _out_of_free_lists()
            return
        if self.frozen_by_user or not hasattr(gc, "freeze"):
            self._clear_beside_frozen()
            return
        if is_frozen():
            self.frozen_by_user = True
            self._clear_beside_frozen()
            return
        self.clears += 1
        try:
            gc.freeze()
            gc.collect()
        finally:
            gc.unfreeze()

    def taken_out_bytes(self, is_traced: Callable[[object], bool]) -> int:
        """Of what `clear` has taken out of them, the bytes of what is traced."""
        if self._taken_out_bytes is None:
            self._taken_out_bytes = sum(
                sys.getsizeof(each)
                for each in self._taken_out
                # To ask takes microseconds, and these are many: mostly they were there before.
                if type(each) is not tuple and is_traced(each)
            )
        return self._taken_out_bytes

    def give_back(self) -> None:
        """Keep nothing any more of what `clear` has taken out of them."""
        self._taken_out, self._taken_out_bytes, self.takes_out = [], None, None

    @staticmethod
    def _clear_beside_frozen() -> None:
        """Collect: few objects are not frozen, so that is cheap; in the main thread only."""
        # Not `current_thread`, which would keep our guard's thread in its list.
        if gc.isenabled() and threading.get_native_id() == os.getpid():
            gc.collect()
