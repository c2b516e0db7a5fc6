"""Receive for a while what workers send, and write it as one page that opens in any browser.

For CI and for colleagues: the file has its data inside and needs no network. Exits with 1 if no
worker sent anything; the page says so, too.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from otel_celery_memory.cli import receiving

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3_600.0}
_LONGEST_S = 24 * 3_600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add(
        "--for",
        dest="seconds",
        type=_duration,
        required=True,
        metavar="TIME",
        help="how long: 90s, 10m or 1h; SIGINT and SIGTERM end it earlier",
    )
    add("-o", "--output", required=True, type=Path, metavar="FILE", help="the file to write")
    receiving.add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Receives, and writes the report."""
    receiving.require_libraries()
    from otel_celery_memory.view.serving import Session, serve

    receiving.check_target(options.output)
    otlp, otlp_socket = receiving.listen(options.otlp_host, options.otlp_port, "--otlp-port")
    grpc, over_grpc = receiving.listen_for_grpc(options.otlp_host, options.grpc_port, otlp)
    session = Session(otlp, grpc=grpc, sources=otlp.is_loopback and not options.no_source)
    print(f"Workers send to {otlp.url}{receiving.how_to_send(otlp)}", flush=True)
    if over_grpc:
        print(over_grpc, flush=True)
    with receiving.port_errors():
        serve(session, otlp_socket, None, options.seconds)
    receiving.write(options.output, session.saved())
    workers = len(session.store.workers)
    if not workers:
        print(f"No worker sent anything; {str(options.output)!a} says so.")
        return 1
    print(f"{'1 worker' if workers == 1 else f'{workers} workers'}: {str(options.output)!a}")
    return 0


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(found[1]) * _UNITS_S[found[2] or "s"] if found else 0.0
    if not 0 < seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 10m or 1h, up to 24h")
    return seconds
