"""Three small leaks, each in a child that it shares with tasks of a far larger working set.

Of its runs 40 % leak, 55 % parse and 5 % take 8 MiB and give it back: by RSS it is the last of them
that grows.
"""

from __future__ import annotations

import ctypes
import functools
import threading

from tests.truth.app import app
from tests.truth.case import Case

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = (ctypes.c_size_t,)
_timers: list[threading.Timer] = []
_calls: list[functools.partial[int]] = []
_KINDS = {"lose": "memory of C", "remind": "timers", "bind": "partials"}
_HOLDERS = {"lose": (), "remind": ("_timers",), "bind": ("_calls",)}
_ALLOCATORS: dict[str, dict[str, str]] = {"": {}, ", jemalloc": {"LD_PRELOAD": "libjemalloc.so.2"}}
CASES = tuple(
    Case(
        f"a mix with {kind}{allocator}",
        task,
        {task: 6},
        worker=("--concurrency=1",),
        environ=environ,
        has_line=task != "lose",
        needs=("jemalloc",) if environ else (),
        kinds=("native",) if task == "lose" else ("python",),
        holder=_HOLDERS[task],
    )
    for allocator, environ in _ALLOCATORS.items()
    for task, kind in _KINDS.items()
)


@app.task
def lose(number: int) -> None:
    """Loses 10,000 bytes that no object of Python knows of."""
    ctypes.memset(_libc.malloc(10_000), number % 256, 10_000)


@app.task
def remind(number: int) -> None:
    """Keeps a timer that is never started, with 4 KB."""
    text = str(number).rjust(4_000)  # the line
    _timers.append(threading.Timer(3_600, len, (text,)))  # the line


@app.task
def bind(number: int) -> None:
    """Keeps a call that is never made, with 2 KB."""
    _calls.append(functools.partial(len, str(number).rjust(2_000)))  # the line
