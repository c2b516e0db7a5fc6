"""What the interpreter and the C library say of their heaps: allocated blocks, malloc, free lists.

CPython's free lists are emptied, so that what was freed does not look alive to ``tracemalloc``.
The interpreter keeps freed tuples, lists, dictionaries, dictionary keys and floats for its next
ones, up to 2,000 of a kind. To ``tracemalloc`` they are alive, at the line that made them: a task
that builds and drops 300 dictionaries seems to leave 20 to 35 KB behind. Only a full collection
empties the lists (``clear_freelists`` in Modules/gcmodule.c), and collecting all of a worker's
heap takes 16 ms. With all objects set aside by ``gc.freeze`` it takes 0.05 ms, finds nothing, and
so runs no finalizer in a thread that may be the wrong one.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HeapReading:
    """Blocks the interpreter holds, and malloc's bytes in use and free (``None`` if unknown)."""

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


def _find(name: str, result: Any, *arguments: Any) -> Callable[..., Any] | None:
    """A function of glibc; musl, macOS and older glibc do not have all of them."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    function.restype = result
    function.argtypes = arguments
    found: Callable[..., Any] = function
    return found


_mallinfo2 = _find("mallinfo2", _Mallinfo2)
_malloc_trim = _find("malloc_trim", ctypes.c_int, ctypes.c_size_t)


def give_back_free_memory() -> None:
    """Return malloc's free pages to the kernel (0.1 to 0.2 ms), where the C library can."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def read_heap() -> HeapReading:
    """The heap now: microseconds as a rule, milliseconds with 100,000 free chunks."""
    blocks = sys.getallocatedblocks()
    if _mallinfo2 is None:
        return HeapReading(blocks, None, None)
    info = _mallinfo2()
    # hblkhd: large blocks that malloc took by mmap count as used and not in uordblks.
    return HeapReading(blocks, info.uordblks + info.hblkhd, info.fordblks)


class FreeLists:
    """The free lists of one process."""

    def __init__(self) -> None:
        self._frozen_by_user = False

    def clear(self) -> None:
        """Empty them, where that can be done without touching what is not ours."""
        if self._frozen_by_user or not hasattr(gc, "freeze"):
            self._clear_beside_frozen()
            return
        if gc.get_freeze_count():
            # Somebody has frozen the heap he shares with his children: thawing it would copy it.
            self._frozen_by_user = True
            self._clear_beside_frozen()
            return
        try:
            gc.freeze()
            gc.collect()
        finally:
            gc.unfreeze()

    @staticmethod
    def _clear_beside_frozen() -> None:
        """What is not frozen is little, so a true collection is cheap; finalizers run at home."""
        # Not `current_thread`, which would list our guard's thread for good.
        if gc.isenabled() and threading.get_native_id() == os.getpid():
            gc.collect()
