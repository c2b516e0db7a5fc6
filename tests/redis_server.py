"""Runs a Redis of its own, without persistence, as the broker of a real worker."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import LOOPBACK, free_ports, require, running


@contextmanager
def running_redis(directory: Path, port: int | None = None) -> Iterator[str]:
    """The URL of an empty Redis, on a free port or a given one."""
    port = port or free_ports(1)[0]
    command = [
        require("redis-server", "the package redis-server"),
        *("--port", str(port), "--bind", LOOPBACK, "--dir", str(directory)),
        *("--save", "", "--appendonly", "no"),
    ]
    with running("redis", command, directory) as server:
        server.wait_ready(lambda: _answers_ping(port))
        yield f"redis://{LOOPBACK}:{port}/0"


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
