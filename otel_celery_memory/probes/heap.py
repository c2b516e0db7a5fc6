"""What the interpreter says of its heap: ``tracemalloc``, allocated blocks, malloc."""

from __future__ import annotations

import ctypes
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Tracer(Protocol):
    """What the meter asks of ``tracemalloc``."""

    @property
    def tracing(self) -> bool:
        """Whether traced numbers can be had now."""

    def begin(self) -> int:
        """Traced bytes now; a new traced peak begins."""

    def read(self) -> tuple[int, int]:
        """Traced bytes now, and the highest since `begin`."""


class HeapTracer:
    """Runs ``tracemalloc`` for us, and never stops a tracing that somebody else started."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._ours = False

    def start(self) -> None:
        """Trace from now on; a tracing that runs already is used as it is."""
        if not tracemalloc.is_tracing():
            tracemalloc.start(self._frames)
            self._ours = True

    def stop(self) -> None:
        """Stop what `start` started.

        ``stop`` may crash where native threads without the GIL report memory (gh-128679, fixed
        in late 3.12, 3.13 and 3.14): only ``uninstrument()`` does this, not a worker that ends.
        """
        if self._ours and tracemalloc.is_tracing():
            tracemalloc.stop()
        self._ours = False

    @property
    def tracing(self) -> bool:
        """Whether traced numbers can be had now."""
        return tracemalloc.is_tracing()

    def begin(self) -> int:
        """Traced bytes now; a new traced peak begins."""
        tracemalloc.reset_peak()
        return tracemalloc.get_traced_memory()[0]

    def read(self) -> tuple[int, int]:
        """Traced bytes now, and the highest since `begin`."""
        return tracemalloc.get_traced_memory()


class NoTracer:
    """The tracer of ``tracing="off"``."""

    tracing = False

    def start(self) -> None:
        """Nothing is traced."""

    def stop(self) -> None:
        """Nothing was started."""

    def begin(self) -> int:
        return 0

    def read(self) -> tuple[int, int]:
        return 0, 0


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
