"""A Collector that fails on demand."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress
from enum import Enum
from http.server import BaseHTTPRequestHandler

from demo.receiver import Receiver

SLOW_S = 2.0
_HANG_MAX_S = 60.0


class Trouble(Enum):
    """The ways in which it fails."""

    NONE = "answers"
    REFUSES = "answers 503"
    HANGS = "accepts and never answers"
    CLOSES = "closes at random"
    SLOW = "is slow"


class TroubledReceiver(Receiver):
    """Keeps only the requests that it answers with 200."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self.trouble = Trouble.NONE
        self._random = random.Random(seed)
        self._over = threading.Event()

    def __enter__(self) -> TroubledReceiver:
        super().__enter__()
        return self

    def turn(self, trouble: Trouble) -> None:
        """Fails in this way from now on; requests that were left hanging are released."""
        self.trouble = trouble
        self.status = 503 if trouble is Trouble.REFUSES else 200
        self._over.set()
        self._over = threading.Event()

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        trouble, over = self.trouble, self._over
        if trouble is Trouble.SLOW:
            over.wait(SLOW_S)
        if trouble is Trouble.HANGS:
            over.wait(_HANG_MAX_S)
        # Fail before anything is kept: a request that is kept and not answered would be sent again.
        if trouble is Trouble.HANGS or (trouble is Trouble.CLOSES and self._random.random() < 0.5):
            handler.close_connection = True
            with suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
            return
        super()._take(handler)
