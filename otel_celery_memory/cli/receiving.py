"""Shared by `view` and `report`: where they listen, and the file that they write."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from otel_celery_memory.cli.common import CommandError

if TYPE_CHECKING:
    from otel_celery_memory.view.serving import Address

LOOPBACK = "127.0.0.1"
OTLP_PORT, GRPC_PORT = 4318, 4317
"""OpenTelemetry's own ports for OTLP over HTTP and gRPC, which exporters send to by default."""


class ListenError(CommandError):
    """A port cannot be listened at."""

    exit_code = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for what is received."""
    add = parser.add_argument
    add("--otlp-host", default=LOOPBACK, metavar="HOST", help="receive there (default %(default)s)")
    add(
        "--otlp-port",
        type=port,
        default=OTLP_PORT,
        metavar="N",
        help="receive OTLP over HTTP at this port (default %(default)s; 0 is any)",
    )
    add(
        "--grpc-port",
        type=port,
        metavar="N",
        help=f"receive OTLP over gRPC at this port (default {GRPC_PORT} where it is free and "
        "--otlp-port is its default, otherwise none; 0 is any)",
    )
    add(
        "--no-source",
        action="store_true",
        help="show no lines of source; by default those around places that workers name, from "
        "this machine, are in the page and in what is saved",
    )


def port(text: str) -> int:
    """A port's number."""
    number = int(text)
    if not 0 <= number < 65_536:
        raise ValueError
    return number


port.__name__ = "port"  # what argparse calls it in its error


def require_libraries() -> None:
    """Raises `CommandError` where what serves is not installed."""
    for name in ("starlette", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            raise CommandError(f"{name} is not installed: pip install 'otel-celery-memory[view]'")


def listen(host: str, number: int, flag: str) -> tuple[Address, socket.socket]:
    """The address that is listened at, and its socket. Raises `ListenError`."""
    from otel_celery_memory.view.serving import Address, PortTakenError, listen_at

    try:
        listening = listen_at(Address(host, number))
    except PortTakenError as error:
        raise ListenError(f"{error}; {flag} takes another one") from None
    return Address(host, listening.getsockname()[1]), listening


def listen_for_grpc(host: str, number: int | None, otlp: Address) -> tuple[Address | None, str]:
    """Where OTLP is received over gRPC, if it is, and a line for people.

    Raises `CommandError` where a port that was asked for cannot be had.
    """
    if number is None and otlp.port != OTLP_PORT:
        return None, ""
    if importlib.util.find_spec("grpc") is None:
        if number is not None:
            raise CommandError("grpcio is not installed: pip install grpcio")
        return None, ""
    try:
        address, listening = listen(host, GRPC_PORT if number is None else number, "--grpc-port")
    except ListenError as error:
        if number is not None:
            raise
        return None, f"Not over gRPC: {error}."
    # gRPC opens sockets itself; this one was to know whether the port can be had, or who has it.
    listening.close()
    how = "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
    if address.port != GRPC_PORT or not address.is_loopback:
        how += f" OTEL_EXPORTER_OTLP_ENDPOINT={address.url}"
    return address, f"Over gRPC to    {address.url}: with {how}"


def how_to_send(otlp: Address) -> str:
    """What a worker needs, if it does not send there by itself."""
    if otlp.port == OTLP_PORT and otlp.is_loopback:
        return ", which they do by default"
    return f": start them with OTEL_EXPORTER_OTLP_ENDPOINT={otlp.url}"


@contextlib.contextmanager
def port_errors() -> Iterator[None]:
    """Makes a port that was taken meanwhile an error of the command."""
    from otel_celery_memory.view.serving import PortTakenError

    try:
        yield
    except PortTakenError as error:
        raise ListenError(f"{error}; --grpc-port takes another one") from None


def check_target(path: Path) -> None:
    """Raises `CommandError` if a file cannot be written there: better now than after an hour."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise CommandError(f"{str(path)!a} cannot be written: there is no such directory")


def write(path: Path, text: str) -> None:
    """Writes the file whole or not at all; it replaces one that is there.

    Readable by the user only, as it has lines of source. Raises `CommandError`.
    """
    target = path.absolute()
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(target)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise CommandError(f"{str(path)!a} cannot be written: {error.strerror}") from None
