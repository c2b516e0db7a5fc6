"""A library of C takes memory in each run and never frees it: no object of Python knows of it."""

from __future__ import annotations

import ctypes

from tests.truth.app import app
from tests.truth.case import Case

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = (ctypes.c_size_t,)
_RATES = {"decode": 10}
CASES = (
    Case("native memory lost", "decode", _RATES, has_line=False, kinds=("native",)),
    Case(
        "native memory lost, with jemalloc",
        "decode",
        _RATES,
        environ={"LD_PRELOAD": "libjemalloc.so.2"},
        has_line=False,
        kinds=("native",),
        needs=("jemalloc",),
    ),
)


@app.task
def decode(number: int) -> None:
    """Loses 10,000 bytes."""
    ctypes.memset(_libc.malloc(10_000), number % 256, 10_000)
