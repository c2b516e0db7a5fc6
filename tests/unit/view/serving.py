"""An application on a free port of the loopback, in a thread, and plain requests to it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

from starlette.types import ASGIApp

from otel_celery_memory.view.serving import Address, Server, listen_at
from tests.processes import LOOPBACK, wait_until

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@contextmanager
def served(app: ASGIApp) -> Iterator[int]:
    """The port that the application is served at."""
    server = Server(app)
    listening = listen_at(Address(LOOPBACK, 0))
    thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait_until("the server runs", lambda: server.started, PATIENCE_S)
    try:
        yield int(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def ask(
    port: int,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
) -> Answer:
    """The answer to one request."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE_S)
    try:
        connection.request(
            method or ("GET" if body is None else "POST"), path, body, dict(headers or {})
        )
        answer = connection.getresponse()
        return Answer(
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            answer.read(),
        )
    finally:
        connection.close()


def half_a_request(port: int, head: bytes) -> socket.socket:
    """A connection on which a request has begun and does not go on."""
    connection = socket.create_connection((LOOPBACK, port), timeout=PATIENCE_S)
    connection.sendall(head)
    return connection
