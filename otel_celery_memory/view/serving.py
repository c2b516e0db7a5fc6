"""The servers of `view` and `report`: their ports, one loop, until a signal or for a time.

OTLP comes in at one port, or over gRPC at a second, and the page is served at another, so that the
first ones can be opened to other machines without the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import psutil
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from otel_celery_memory.view.application import Feed, application
from otel_celery_memory.view.capture_files import with_captures
from otel_celery_memory.view.intake import Intake
from otel_celery_memory.view.page import saved_page
from otel_celery_memory.view.receiver import receiver
from otel_celery_memory.view.remote import AppError, Remote
from otel_celery_memory.view.snapshot import Surroundings
from otel_celery_memory.view.source_lines import SourceLines
from otel_celery_memory.view.store import Store

_CONNECTIONS_MAX = 200
_GOODBYE_S = 1
_ASK_S = 3.0
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class PortTakenError(Exception):
    """An address cannot be listened at; the message says why, in one line."""


@dataclass(frozen=True)
class Address:
    """A host and a port to listen at."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """For people and for exporters."""
        return f"http://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as in an address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may call this host; of one that other machines reach, anything."""
        return (*_LOOPBACK_NAMES, self.host) if self.is_loopback else ("*",)


__all__ = ["Address", "AppError", "PortTakenError", "Remote", "Session", "listen_at", "serve"]


class Session:
    """What is received, and what is made of it: of a live page, and of a saved one."""

    def __init__(
        self,
        otlp: Address,
        *,
        grpc: Address | None = None,
        app: str | None = None,
        remote: Remote | None = None,
        sources: bool = True,
    ) -> None:
        self.remote = remote
        self.grpc = grpc
        """Where OTLP is received over gRPC, too."""
        self.store = Store(time.time())
        lines = SourceLines(self.store.was_named)
        self.feed = Feed(
            self.store,
            Surroundings(
                otlp.url,
                app,
                captures=otlp.is_loopback and (grpc is None or grpc.is_loopback),
                grpc=grpc.url if grpc else None,
            ),
            lines.around if sources else lambda *_: None,
        )

    def saved(self) -> str:
        """The page as of now, as one file."""
        return saved_page(with_captures(self.feed.now(live=False)))


def listen_at(address: Address) -> socket.socket:
    """A socket that listens. Raises `PortTakenError`."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen()
        except OSError:
            listening.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        by = f", by {user}" if (user := _user_of(address.port)) else ""
        raise PortTakenError(
            f"cannot listen at {address.host}, port {address.port}: {reason}{by}"
        ) from None
    return listening


def serve(
    session: Session,
    otlp: socket.socket,
    page: tuple[socket.socket, Address] | None,
    seconds: float | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, or for some seconds. Without ``page`` it only receives.

    Raises `PortTakenError` where the port of gRPC has been taken since it was chosen.
    """
    intake = Intake(session.store)
    to_receive = receiver(intake)
    if page is None:
        app: ASGIApp = to_receive
        sockets = [otlp]
    else:
        browsers = application(session.feed, page[1].names, session.remote)
        app, sockets = _by_port(otlp, to_receive, browsers), [otlp, page[0]]
    asyncio.run(_serve(app, sockets, session, intake, seconds))


async def _serve(
    app: ASGIApp,
    sockets: list[socket.socket],
    session: Session,
    intake: Intake,
    seconds: float | None,
) -> None:
    server = Server(app)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # A second signal does not wait for anybody.
        server.force_exit = server.should_exit
        server.should_exit = session.feed.stopped = True

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    if seconds is not None:
        loop.call_later(seconds, stop)
    async with _grpc(session.grpc, intake):
        asking = asyncio.create_task(_keep_asking(session))
        await server.serve(sockets=sockets)
        asking.cancel()


@contextlib.asynccontextmanager
async def _grpc(at: Address | None, intake: Intake) -> AsyncIterator[None]:
    """Receives over gRPC meanwhile, if it is known where."""
    if at is None:
        yield
        return
    from otel_celery_memory.view.grpc_receiver import grpc_receiver

    server = grpc_receiver(intake)
    try:
        server.add_insecure_port(at.authority)
    except RuntimeError:
        raise PortTakenError(f"cannot listen at {at.host}, port {at.port}, for gRPC") from None
    await server.start()
    try:
        yield
    finally:
        await server.stop(_GOODBYE_S)


async def _keep_asking(session: Session) -> None:
    """Asks the workers what they do, where an app was named."""
    while session.remote is not None:
        try:
            session.store.take_answers(await asyncio.to_thread(session.remote.ask))
        except Exception:  # a broker that is away raises what its library likes
            session.store.take_answers({})
        await asyncio.sleep(_ASK_S)


class Server(uvicorn.Server):
    """uvicorn without a log of requests, and without signal handlers of its own.

    Its own raise the signal again when it has ended, before a report could be written.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS_MAX,
                timeout_graceful_shutdown=_GOODBYE_S,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to who runs it."""
        yield


def _by_port(otlp: socket.socket, to_receive: ASGIApp, browsers: ASGIApp) -> ASGIApp:
    """One application for two sockets: a connection's own address says which it came to."""
    port = otlp.getsockname()[1]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        _, came_to = scope.get("server") or (None, None)
        await (to_receive if came_to == port else browsers)(scope, receive, send)

    return answer


def _user_of(port: int) -> str:
    """Who listens at a port, as far as this user may know."""
    with contextlib.suppress(psutil.Error, OSError):
        for each in psutil.net_connections("tcp"):
            if each.laddr and each.laddr.port == port and each.status == psutil.CONN_LISTEN:
                if each.pid is None:
                    return "a process of another user"
                return f"{psutil.Process(each.pid).name()} (pid {each.pid})"
    return ""
