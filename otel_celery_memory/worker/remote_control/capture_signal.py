"""SIGURG begins a capture, for workers whose broker cannot be reached.

Not SIGUSR1, which is a prefork child's soft time limit, nor SIGUSR2, which Celery and billiard
replace: SIGURG is left alone by both, and ignored by default. Off unless the setting
``capture_signal`` is on.
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
    """Call `do` in a thread of its own at each SIGURG; ``False`` where that cannot be.

    In a thread, because the signal may strike inside our own code, which holds locks.
    """
    if not hasattr(signal, "SIGURG") or threading.current_thread() is not threading.main_thread():
        return False

    def contained() -> None:
        try:
            do()
        except Exception:
            logger.exception("otel_celery_memory: a capture by signal failed")

    pid = os.getpid()

    def handler(*_: object) -> None:
        if os.getpid() != pid:
            return  # inherited: a child that does not listen yet, or that a task forked
        try:
            start_native_thread(contained)
        except RuntimeError:
            logger.warning("otel_celery_memory: no thread for a capture")

    signal.signal(signal.SIGURG, handler)
    _handlers[:] = [handler]
    # The task's system calls go on as if nothing had happened.
    signal.siginterrupt(signal.SIGURG, False)
    return True


def release() -> None:
    """Leave SIGURG to its default again, which is to be ignored, if it is still handled here."""
    if not _handlers or signal.getsignal(signal.SIGURG) is not _handlers.pop():
        return
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGURG, signal.SIG_DFL)


def send(pids: list[int]) -> None:
    """Signal these processes; those that are gone are gone."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGURG)
