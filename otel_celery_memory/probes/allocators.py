"""The heaps of the interpreter and the C library: allocated blocks, malloc, free lists.

CPython's free lists look like leaks. The interpreter keeps freed tuples, lists, dictionaries,
dictionary keys and floats for reuse, up to 2,000 of a kind. To ``tracemalloc`` they are alive, at
the line that made them: a task that builds and drops 300 dictionaries seems to retain 20 to 35 KB.
So `FreeLists` empties them before traces are read. Only a full collection does that
(``clear_freelists`` in Modules/gcmodule.c), and collecting all of a worker's heap takes 16 ms. With
all objects set aside by ``gc.freeze`` it takes 0.05 ms and finds no garbage, so no finalizer runs
in the wrong thread.
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


def _find(name: str, result: Any, *arguments: Any) -> Callable[..., Any] | None:
    """A function of glibc; ``None`` where it is missing: in musl, macOS or an older glibc."""
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
    """Return malloc's free pages to the kernel (0.1 to 0.2 ms), if the C library can."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def read_heap() -> HeapReading:
    """The heap now. It takes microseconds, with 100,000 free chunks milliseconds."""
    blocks = sys.getallocatedblocks()
    if _mallinfo2 is None:
        return HeapReading(blocks, None, None)
    info = _mallinfo2()
    # Large blocks, which malloc maps with mmap, are in hblkhd and not in uordblks.
    return HeapReading(blocks, info.uordblks + info.hblkhd, info.fordblks)


class FreeLists:
    """The free lists of one process."""

    def __init__(self) -> None:
        self._frozen_by_user = False

    def clear(self) -> None:
        """Empty them, unless the user's code has frozen objects."""
        if self._frozen_by_user or not hasattr(gc, "freeze"):
            self._clear_beside_frozen()
            return
        if gc.get_freeze_count():
            # The user has frozen the heap that children share: unfreezing it would copy it.
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
        """Collect: few objects are not frozen, so that is cheap; in the main thread only."""
        # Not `current_thread`, which would keep our guard's thread in its list.
        if gc.isenabled() and threading.get_native_id() == os.getpid():
            gc.collect()
