"""Native threads: how many there are, and how to start one under gevent and eventlet.

gevent and eventlet replace ``_thread`` by greenlets, and a greenlet cannot stop a task that does
not yield. Both keep the original functions.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

import psutil

_TASKS = "/proc/self/task"


class NativeLock(Protocol):
    """A lock for native threads, as ``_thread.allocate_lock`` makes it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, within `timeout` seconds if that is not negative; whether it was taken."""

    def release(self) -> None:
        """Release it; any thread may."""

    def __enter__(self) -> bool: ...

    def __exit__(self, *exc_info: object) -> None: ...


def is_patched() -> bool:
    """Whether gevent or eventlet has replaced the threads of this process."""
    return getattr(_thread.allocate_lock, "__module__", "_thread") != "_thread"


def native_lock() -> NativeLock:
    """A lock that a native thread can wait for."""
    lock: NativeLock = _original("allocate_lock")()
    return lock


def start_native_thread(function: Callable[[], None]) -> None:
    """Run `function` in a native thread; raises `RuntimeError` where none can be started."""
    _original("start_new_thread")(_run, (function,))


def _run(function: Callable[[], None]) -> None:
    try:
        function()
    finally:
        if not is_patched():  # a greenlet's dummy is removed with it
            _forget_dummy()


def _forget_dummy() -> None:
    """Remove the dummy that ``threading`` keeps of a thread that it did not start.

    It makes one when such a thread calls ``current_thread``, as logging does. Before CPython 3.13
    it keeps it for ever, or until a thread has the same number.
    """
    known: dict[int, threading.Thread] = vars(threading).get("_active", {})
    if isinstance(known.get(threading.get_ident()), threading._DummyThread):
        known.pop(threading.get_ident(), None)


def native_thread() -> int:
    """The number of this native thread, whatever greenlet runs in it."""
    return int(_original("get_ident")())


def has_foreign_threads(tasks: str = _TASKS) -> bool:
    """Whether this process has threads that Python did not start."""
    known = 1 + int(_original("_count")())
    try:
        # A directory has two links, and one more for each directory in it.
        return os.stat(tasks).st_nlink - 2 > known  # noqa: PTH116
    except OSError:
        return psutil.Process().num_threads() > known


def _original(name: str) -> Any:
    if is_patched():
        if "gevent.monkey" in sys.modules:
            return sys.modules["gevent.monkey"].get_original("_thread", name)
        if "eventlet.patcher" in sys.modules:
            return getattr(sys.modules["eventlet.patcher"].original("_thread"), name)
    return getattr(_thread, name)
