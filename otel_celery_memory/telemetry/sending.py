"""Sending at once what was recorded, without waiting for an endpoint that may never answer."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread


class BackgroundSender:
    """Runs a function that may hang in a thread, at most once at a time.

    Who asks while it runs is served when it has ended: what it took may be older.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._wanted = Event()
        self._running = Lock()

    def send(self) -> None:
        """Begin; returns at once. Raises `RuntimeError` where no thread is to be had."""
        self._wanted.set()
        if not self._running.locked():
            Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while self._wanted.is_set():
            if not self._running.acquire(blocking=False):
                return
            try:
                self._wanted.clear()
                self._function()
            finally:
                self._running.release()
