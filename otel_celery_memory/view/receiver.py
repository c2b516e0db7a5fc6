"""The receiver of OTLP over HTTP: an application that hands on what it is sent.

Answers as OTLP asks: 200 with an empty response, 400 for a body that is no request, 404 and 405 for
other places and methods, 408 for a body that does not come, 413 for too much, 415 for an encoding
or a type that is not spoken here, 503 when too many send at once. What a refusal says is a
``google.rpc.Status``, as exporters expect.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable

from google.rpc.status_pb2 import Status
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from otel_celery_memory.view.intake import BODY_BYTES_MAX, Intake
from otel_celery_memory.view.otlp import MalformedError

SENT_BYTES_MAX = 4 << 20
"""Of a body as it is sent."""
AT_ONCE_MAX = 4
"""Bodies that are held at the same time."""
PATIENCE_S = 10.0
"""For a body, and for one of the `AT_ONCE_MAX` places."""
_PROTOBUF = "application/x-protobuf"
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class RefusedError(Exception):
    """A request that is not taken, with the status that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def receiver(intake: Intake) -> Starlette:
    """The application: ``/v1/metrics``, ``/v1/logs`` and ``/v1/traces``."""
    places = asyncio.Semaphore(AT_ONCE_MAX)

    def endpoint(take: Callable[[bytes], None]) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            try:
                _check(request)
                async with _place(places):
                    take(await _body(request))
            except RefusedError as error:
                return _refusal(error.status, str(error))
            except MalformedError as error:
                return _refusal(400, f"no request of OTLP: {error}")
            except ClientDisconnect:
                return _refusal(400, "the body ended early")
            return Response(b"", media_type=_PROTOBUF)

        return answer

    return Starlette(
        routes=[
            Route("/v1/metrics", endpoint(intake.metrics), methods=["POST"]),
            Route("/v1/logs", endpoint(intake.logs), methods=["POST"]),
            Route("/v1/traces", endpoint(intake.traces), methods=["POST"]),
        ]
    )


class _place:  # noqa: N801 - used as a statement
    """One of the places for bodies, or a refusal when none becomes free."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places

    async def __aenter__(self) -> None:
        try:
            await asyncio.wait_for(self._places.acquire(), PATIENCE_S)
        except asyncio.TimeoutError:
            raise RefusedError(503, "too many requests at once") from None

    async def __aexit__(self, *_: object) -> None:
        self._places.release()


def _check(request: Request) -> None:
    """Raises `RefusedError` where the head says that the body need not be read."""
    headers = request.headers
    if "origin" in headers:
        # Workers send none: a page in a browser does, to a port that it guessed.
        raise RefusedError(403, "requests of web pages are not taken")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _PROTOBUF:
        raise RefusedError(415, f"send {_PROTOBUF} (OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf)")
    if _encoding(request) not in ("identity", "gzip", "deflate"):
        raise RefusedError(415, "send gzip, deflate or no compression")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length[:20]) > SENT_BYTES_MAX:
        raise RefusedError(413, f"more than {SENT_BYTES_MAX >> 20} MiB are not taken")


def _encoding(request: Request) -> str:
    return request.headers.get("content-encoding", "identity").strip().lower() or "identity"


async def _body(request: Request) -> bytes:
    """The body, unpacked. Never holds more than the two bounds."""
    sent = bytearray()
    stream = request.stream()
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), max(until_s - time.monotonic(), 0.01))
        except StopAsyncIteration:
            break
        except asyncio.TimeoutError:
            raise RefusedError(408, "the body did not come in time") from None
        sent += chunk
        if len(sent) > SENT_BYTES_MAX:
            raise RefusedError(413, f"more than {SENT_BYTES_MAX >> 20} MiB are not taken")
    return bytes(sent) if _encoding(request) == "identity" else _unpacked(bytes(sent))


def _unpacked(sent: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        body = unpacker.decompress(sent, BODY_BYTES_MAX)
    except zlib.error as error:
        raise RefusedError(400, f"cannot be decompressed: {error}") from None
    if unpacker.unconsumed_tail:
        raise RefusedError(413, f"more than {BODY_BYTES_MAX >> 20} MiB unpacked are not taken")
    if not unpacker.eof:
        raise RefusedError(400, "the compressed body ends early")
    return body


def _refusal(status: int, reason: str) -> Response:
    headers = {"Retry-After": "5"} if status == 503 else None
    # The body may be there still, unread: the connection cannot be used again.
    message = Status(message=reason).SerializeToString()
    return Response(message, status, headers, media_type=_PROTOBUF)
