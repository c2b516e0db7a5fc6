"""Show a capture: which lines hold how much memory, and for which task.

FILE is a capture that a worker wrote, or with --trust-pickle a file of tracemalloc.Snapshot.dump().
Loading such a file runs code from it: use it for files you wrote yourself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from otel_celery_memory.captures.comparison import Group, grouped, total
from otel_celery_memory.captures.model import ADDED_UP, Capture, CaptureError
from otel_celery_memory.captures.pprof import dump_pprof
from otel_celery_memory.cli import common
from otel_celery_memory.cli.common import (
    Column,
    CommandError,
    count,
    described,
    heading,
    size,
    table,
)
from otel_celery_memory.settings import http_url

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("file", metavar="FILE", type=Path)
    common.add_options(parser)
    parser.add_argument(
        "--pprof", metavar="OUT", type=Path, help="also write a profile for go tool pprof"
    )
    parser.add_argument(
        "--otlp-profile",
        metavar="ENDPOINT",
        help="also send it as an OTLP profile (alpha) to a Collector, as http://localhost:4318",
    )


def run(options: argparse.Namespace) -> int:
    """Prints the capture."""
    capture = common.read(options.file, trust_pickle=options.trust_pickle)
    chosen = common.site_filter(options).apply(capture)
    groups = grouped(chosen, options.by)
    if options.pprof is not None:
        _write_new(options.pprof, dump_pprof(chosen))
    if options.otlp_profile is not None:
        _send(options.otlp_profile, chosen)
    if options.json:
        print(json.dumps(_as_json(chosen, groups, options.by, options.top), indent=2))
    else:
        print("\n".join(_as_text(chosen, groups, options.top)))
    return 0


def _as_text(capture: Capture, groups: Sequence[Group], top: int) -> Iterator[str]:
    yield from heading(capture, "Capture")
    yield ""
    shown = groups[:top]
    numbers = [
        Column("size", [size(group.size_bytes) for group in shown]),
        Column("blocks", [count(group.blocks) for group in shown]),
    ]
    if capture.kind in ADDED_UP:
        numbers.append(Column("a run", [size(group.run_bytes) for group in shown]))
    texts = [
        Column("task", [group.task for group in shown], number=False),
        Column("place", [group.place for group in shown], number=False),
    ]
    yield from table([*numbers, *texts], [group.stack for group in shown])
    yield ""
    size_bytes, blocks = total(groups)
    yield f"{size(size_bytes)} in {count(blocks)} blocks at {count(len(groups))} places" + (
        f", {len(shown)} shown" if len(shown) < len(groups) else ""
    )
    if capture.other_bytes or capture.other_blocks:
        yield (
            f"{size(capture.other_bytes)} in {count(capture.other_blocks)} blocks more at sites "
            "beyond the capture's bound"
        )


def _as_json(capture: Capture, groups: Sequence[Group], by: str, top: int) -> dict[str, object]:
    size_bytes, blocks = total(groups)
    return {
        "capture": described(capture),
        "by": by,
        "groups": len(groups),
        "size_bytes": size_bytes,
        "blocks": blocks,
        "top": [
            {
                "task": group.task,
                "name": group.name,
                "function": group.function,
                "stack": group.stack,
                "size_bytes": group.size_bytes,
                "blocks": group.blocks,
                "run_bytes": group.run_bytes,
            }
            for group in groups[:top]
        ],
    }


def _send(endpoint: str, capture: Capture) -> None:
    """Sends the capture with the resource and the headers of OpenTelemetry's variables."""
    # The SDK and protobuf, which nothing else here needs.
    from otel_celery_memory.telemetry.profiles import send_profile
    from otel_celery_memory.telemetry.providers import worker_resource

    try:
        http_url(endpoint)
    except ValueError:
        shown = ascii(endpoint)
        raise CommandError(f"{shown} is no URL such as http://localhost:4318") from None
    try:
        url = send_profile(endpoint, capture, worker_resource(capture.worker, os.environ))
    except CaptureError as error:
        raise CommandError(f"not sent: {error}") from None
    print(f"sent to {url}", file=sys.stderr)


def _write_new(path: Path, data: bytes) -> None:
    """Writes a new file completely or not at all, readable by the user only."""
    shown = ascii(str(path))
    try:
        fd = os.open(path, _NEW_FILE, 0o600)
    except FileExistsError:
        raise CommandError(f"{shown} exists already, and is not overwritten") from None
    except (OSError, ValueError) as error:
        raise _unwritable(shown, error) from None
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise _unwritable(shown, error) from None


def _unwritable(path: str, error: OSError | ValueError) -> CommandError:
    return CommandError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}")
