"""Sockets are kept open, and pipes whose numbers nobody keeps."""

from __future__ import annotations

import os
import socket

from tests.truth.app import app
from tests.truth.case import Case

_sockets: list[tuple[socket.socket, socket.socket]] = []
_DESCRIPTORS = ("file_descriptors",)
CASES = (
    Case("sockets kept open", "dial", {"dial": 2}, kinds=_DESCRIPTORS, holder=("_sockets",)),
    Case("pipes left open", "stream", {"stream": 2}, kinds=_DESCRIPTORS, has_line=False),
)


@app.task
def dial(number: int) -> int:
    """Keeps both ends."""
    _sockets.append(socket.socketpair())  # the line
    return number


@app.task
def stream(number: int) -> int:
    """Forgets both ends."""
    return sum(os.pipe()) + number
