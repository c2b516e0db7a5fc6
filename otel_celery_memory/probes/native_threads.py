"""Threads of the kernel's own: how many there are, and how to make one under gevent and eventlet.

gevent and eventlet replace ``_thread`` by greenlets, which cannot stop a task that does not give
way. Both keep the originals.
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
    """A lock of the kernel's, as ``_thread.allocate_lock`` makes it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, within `timeout` seconds if that is not negative."""

    def release(self) -> None:
        """Give it back; any thread may."""

    def __enter__(self) -> bool: ...

    def __exit__(self, *exc_info: object) -> None: ...


def is_patched() -> bool:
    """Whether gevent or eventlet has replaced the threads of this process."""
    return getattr(_thread.allocate_lock, "__module__", "_thread") != "_thread"


def native_lock() -> NativeLock:
    """A lock that a thread of the kernel can wait for."""
    lock: NativeLock = _original("allocate_lock")()
    return lock


def start_native_thread(function: Callable[[], None]) -> None:
    """Run `function` in a thread of the kernel; raises `RuntimeError` where there is none left."""
    _original("start_new_thread")(_run, (function,))


def _run(function: Callable[[], None]) -> None:
    try:
        function()
    finally:
        if not is_patched():  # greenlets' dummies go with them
            _forget_dummy()


def _forget_dummy() -> None:
    """``threading`` keeps a dummy for a thread that is not its own and asked who it is.

    As any does that logs; before CPython 3.13 for ever, or until a thread has the same number.
    """
    known: dict[int, threading.Thread] = vars(threading).get("_active", {})
    if isinstance(known.get(threading.get_ident()), threading._DummyThread):
        known.pop(threading.get_ident(), None)


def native_thread() -> int:
    """Which thread of the kernel this is, whatever greenlet runs in it."""
    return int(_original("get_ident")())


def has_foreign_threads(tasks: str = _TASKS) -> bool:
    """Whether there are threads in this process that Python did not start."""
    known = 1 + int(_original("_count")())
    try:
        # A directory's links are itself, its parent's entry and one for each directory in it.
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
