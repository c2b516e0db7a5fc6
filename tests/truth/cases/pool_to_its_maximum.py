"""A pool of connections grows to its maximum with the first runs, and stays there."""

from __future__ import annotations

import socket

from tests.truth.app import app
from tests.truth.case import Case

_pool: list[tuple[socket.socket, socket.socket, bytearray]] = []
CASES = (Case("a pool at its maximum", None, {"query": 15}, fills=("query",)),)


@app.task
def query(number: int) -> int:
    """Opens one more until there are forty."""
    if len(_pool) < 40:
        _pool.append((*socket.socketpair(), bytearray(20_000)))
    ours, theirs, _ = _pool[number % len(_pool)]
    ours.send(b"query")
    return len(theirs.recv(5))
