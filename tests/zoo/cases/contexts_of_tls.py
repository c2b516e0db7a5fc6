"""A session with a context of TLS is made in each run and kept: its memory is OpenSSL's."""

from __future__ import annotations

import ssl

from tests.truth.app import app
from tests.truth.case import Case

_sessions: list[ssl.SSLContext] = []
CASES = (
    Case(
        "sessions with TLS kept", "notify", {"notify": 8}, kinds=("native",), holder=("_sessions",)
    ),
)


@app.task
def notify(number: int) -> int:
    """Makes a context."""
    _sessions.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # the line
    return number
