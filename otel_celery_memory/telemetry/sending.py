"""Sending at once what was recorded, without waiting for an endpoint that may never answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread


class BackgroundSender:
    """Runs functions that may hang, side by side, each at most once at a time.

    Who asks while one runs is served when it has ended: what it took may be older.
    """

    def __init__(self, functions: Sequence[Callable[[], object]]) -> None:
        self._wanted = [Event() for _ in functions]
        self._running = [Lock() for _ in functions]
        self._functions = functions

    def send_now(self) -> None:
        """Begin; returns at once."""
        for function, wanted, running in zip(
            self._functions, self._wanted, self._running, strict=True
        ):
            wanted.set()
            if not running.locked():
                Thread(target=self._run, args=(function, wanted, running), daemon=True).start()

    @staticmethod
    def _run(function: Callable[[], object], wanted: Event, running: Lock) -> None:
        while wanted.is_set():
            if not running.acquire(blocking=False):
                return
            try:
                wanted.clear()
                function()
            finally:
                running.release()
