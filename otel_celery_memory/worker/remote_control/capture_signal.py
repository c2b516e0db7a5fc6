"""SIGURG begins a capture, for workers whose broker cannot be reached.

SIGUSR1 is a prefork child's soft time limit, and Celery and billiard replace SIGUSR2. Neither uses
SIGURG, which is ignored by default. It is handled only if the setting ``capture_signal`` is on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable

from otel_celery_memory.probes.native_threads import start_native_thread

logger = logging.getLogger(__name__)

_handlers: list[Callable[..., None]] = []


def handle(do: Callable[[], None]) -> bool:
    """Calls `do` in a new thread at each SIGURG; ``False`` if the signal cannot be handled here.

    In a thread, because the signal may interrupt our own code while it holds locks.
    """
    if not hasattr(signal, "SIGURG") or threading.current_thread() is not threading.main_thread():
        return False

    def run() -> None:
        try:
            do()
        except Exception:
            logger.exception("otel_celery_memory: a capture by signal failed")

    pid = os.getpid()

    def handler(*_: object) -> None:
        if os.getpid() != pid:
            return  # inherited by a child that does not listen yet, or that a task forked
        try:
            start_native_thread(run)
        except RuntimeError:
            logger.warning("otel_celery_memory: no thread can be started for a capture")

    signal.signal(signal.SIGURG, handler)
    _handlers[:] = [handler]
    # The signal must not interrupt the task's system calls.
    signal.siginterrupt(signal.SIGURG, False)
    return True


def release() -> None:
    """Resets SIGURG to its default, which is to be ignored, if it is still handled here."""
    if not _handlers or signal.getsignal(signal.SIGURG) is not _handlers.pop():
        return
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGURG, signal.SIG_DFL)


def send(pids: list[int]) -> None:
    """Sends SIGURG to these processes; those that have ended are passed over."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGURG)
