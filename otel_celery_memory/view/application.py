"""What a browser is served: the page, its data as server-sent events, and the page as a file.

Only requests that name this machine are answered, so that no page of the web can have its name
lead here (DNS rebinding), and what changes anything must come from the page itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otel_celery_memory.view import capture_files
from otel_celery_memory.view.otlp import Sender
from otel_celery_memory.view.page import POLICY, asset, live_page, saved_page
from otel_celery_memory.view.remote import Remote
from otel_celery_memory.view.snapshot import (
    Plain,
    SourceOf,
    Surroundings,
    captures_of,
    snapshot,
)
from otel_celery_memory.view.store import Store

LISTENERS_MAX = 16
"""Pages that are kept up to date at once."""
_LOOK_S = 0.5
_REPEAT_S = 5.0
"""A page hears that often where nothing came: that a worker is silent is news."""
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Feed:
    """The newest snapshot, made once for all who ask for it."""

    def __init__(
        self,
        store: Store,
        around: Surroundings,
        source_of: SourceOf,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._around = around
        self._source_of = source_of
        self._clock_s = clock_s
        self._made: tuple[int, float, str] = (-1, 0.0, "")
        self.stopped = False
        """Set when the server ends: nobody is kept waiting then."""

    @property
    def version(self) -> int:
        """Changes when there is something new."""
        return self._store.version

    @property
    def senders(self) -> Iterable[Sender]:
        """The workers that are known."""
        return self._store.workers

    def now(self, *, live: bool = True) -> Plain:
        """Everything as of now; for a page that stays as it is where it is not ``live``."""
        around = replace(self._around, live=live)
        return snapshot(self._store, self._clock_s(), around, self._source_of)

    def capture_files(self) -> dict[str, str]:
        """The files of captures that workers named, by what the page calls them."""
        return {
            row["key"]: row["file"]
            for sender in self._store.workers
            for row in captures_of(self._store, sender, self._around)
            if row["key"]
        }

    def text(self) -> str:
        """The same as JSON, no older than a moment."""
        version, made_s, text = self._made
        now_s = self._clock_s()
        if version != self.version or not 0 <= now_s - made_s < _LOOK_S:
            text = json.dumps(self.now(), allow_nan=False, separators=(",", ":"))
            self._made = (self.version, now_s, text)
        return text


def application(feed: Feed, hosts: Sequence[str], remote: Remote | None = None) -> ASGIApp:
    """The application for browsers. ``hosts`` are the names that it answers to; ``*`` is any.

    ``remote`` asks workers for captures.
    """
    listeners = 0
    reading = asyncio.Lock()
    """One at a time: a capture takes much memory while it is read."""

    async def page(_: Request) -> Response:
        return Response(live_page(), media_type="text/html")

    async def part(request: Request) -> Response:
        found = asset(request.path_params["name"])
        if found is None:
            return PlainTextResponse("there is no such file", 404)
        return Response(found[0], media_type=found[1])

    async def data(_: Request) -> Response:
        return Response(feed.text(), media_type="application/json")

    async def report(_: Request) -> Response:
        async with reading:
            saved = await asyncio.to_thread(_saved, feed.now(live=False))
        headers = {"content-disposition": 'attachment; filename="celery-memory.html"'}
        return Response(saved, media_type="text/html", headers=headers)

    async def live(_: Request) -> Response:
        if listeners >= LISTENERS_MAX:
            return PlainTextResponse("too many pages are open", 503)
        return StreamingResponse(told(), media_type="text/event-stream")

    async def told() -> AsyncIterator[str]:
        nonlocal listeners
        listeners += 1
        try:
            version, last_s = -1, 0.0
            while not feed.stopped:
                if feed.version != version or time.monotonic() - last_s > _REPEAT_S:
                    version, last_s = feed.version, time.monotonic()
                    # JSON has no line breaks, so it is one line of data.
                    yield f"data: {feed.text()}\n\n"
                await asyncio.sleep(_LOOK_S)
        finally:
            listeners -= 1

    async def capture(request: Request) -> Response:
        headers = request.headers
        # What other pages send has their origin, or none of ours.
        if headers.get("origin") != f"{request.url.scheme}://{headers.get('host', '')}":
            return JSONResponse({"error": "only the page itself may ask for captures"}, 403)
        if remote is None:
            return JSONResponse({"error": "no app was named: view -A yourapp"}, 409)
        node = headers.get("x-worker", "")
        if node not in {sender.node for sender in feed.senders}:
            return JSONResponse({"error": "no such worker sends here"}, 404)
        try:
            error = await asyncio.to_thread(remote.capture, node)
        except Exception as problem:  # a broker that is away raises what its library likes
            error = f"not sent: {type(problem).__name__}"
        return JSONResponse({"error": error})

    async def captured(request: Request) -> Response:
        file = feed.capture_files().get(request.path_params["key"])
        if file is None:
            return _unknown_capture()
        async with reading:
            return JSONResponse(await asyncio.to_thread(capture_files.shown, file))

    async def compared(request: Request) -> Response:
        files = feed.capture_files()
        before, after = (files.get(request.path_params[name]) for name in ("before", "after"))
        if before is None or after is None:
            return _unknown_capture()
        async with reading:
            return JSONResponse(await asyncio.to_thread(capture_files.compared, before, after))

    async def missing(_: Request, __: Exception) -> Response:
        return JSONResponse({"error": "there is nothing here"}, 404)

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/assets/{name:path}", part),
            Route("/snapshot.json", data),
            Route("/report.html", report),
            Route("/live", live),
            Route("/captures", capture, methods=["POST"]),
            Route("/captures/{key}", captured),
            Route("/captures/{before}/{after}", compared),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={404: missing},
    )
    return _with_headers(app)


def _saved(found: Plain) -> str:
    return saved_page(capture_files.with_captures(found))


def _unknown_capture() -> Response:
    return JSONResponse({"error": "no worker has told of such a capture"}, 404)


def _with_headers(app: ASGIApp) -> ASGIApp:
    """The application, with what browsers must know of every answer, also of a refusal."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await app(scope, receive, send_more)

    return answer
