"""See the memory of workers on this machine, in a browser, without any other server.

It receives OTLP at the standard port, so that a worker with no configuration sends to it, and
serves a page at an address that it prints. Both are of this machine alone unless told otherwise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from otel_celery_memory.cli import receiving
from otel_celery_memory.cli.common import CommandError

PAGE_PORT = 4380


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("--host", default=receiving.LOOPBACK, help="serve the page there (default %(default)s)")
    add(
        "--port",
        type=receiving.port,
        default=PAGE_PORT,
        metavar="N",
        help="serve the page at this port (default %(default)s; 0 is any)",
    )
    receiving.add_options(parser)
    add(
        *("-A", "--app"),
        metavar="APP",
        help="the Celery app, as for celery inspect: its workers are asked what they run, and for "
        "captures where the page's button is pressed",
    )
    add("--save", metavar="FILE", type=Path, help="when it ends, write the page into one file")


def run(options: argparse.Namespace) -> int:
    """Serves until it is interrupted."""
    receiving.require_libraries()
    from otel_celery_memory.view.serving import AppError, Remote, Session, serve

    if options.save is not None:
        receiving.check_target(options.save)
    try:
        remote = Remote(options.app) if options.app else None
    except AppError as error:
        raise CommandError(f"the app {options.app!a} cannot be used: {error}") from None
    otlp, otlp_socket = receiving.listen(options.otlp_host, options.otlp_port, "--otlp-port")
    grpc, over_grpc = receiving.listen_for_grpc(options.otlp_host, options.grpc_port, otlp)
    page, page_socket = receiving.listen(options.host, options.port, "--port")
    here = otlp.is_loopback and page.is_loopback
    session = Session(
        otlp,
        grpc=grpc,
        app=options.app,
        remote=remote,
        sources=here and not options.no_source,
    )
    print(f"The page:       {page.url}/")
    print(f"Workers send to {otlp.url}{receiving.how_to_send(otlp)}")
    if over_grpc:
        print(over_grpc)
    if not page.is_loopback:
        print("Other machines can open the page, which asks for no password.")
    print("Ctrl-C ends it.", flush=True)
    with receiving.port_errors():
        serve(session, otlp_socket, (page_socket, page))
    if options.save is not None:
        receiving.write(options.save, session.saved())
        print(f"Saved as {str(options.save)!a}.")
    return 0
