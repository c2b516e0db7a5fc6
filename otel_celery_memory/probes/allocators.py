"""What the interpreter and the C library say of their heaps: allocated blocks, malloc."""

from __future__ import annotations

import ctypes
import sys
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
