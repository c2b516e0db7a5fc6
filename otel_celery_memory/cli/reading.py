"""What ``show`` and ``diff`` share: their options, and the files that they read."""

from __future__ import annotations

import argparse
from pathlib import Path

from otel_celery_memory.captures.errors import CaptureError
from otel_celery_memory.captures.format import load_capture, read_bytes
from otel_celery_memory.captures.grouping import GROUPINGS, LINE, Choice
from otel_celery_memory.captures.model import Capture
from otel_celery_memory.captures.snapshot import PICKLE_MAGIC, REFUSAL, read_snapshot
from otel_celery_memory.cli.errors import CommandError


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose, group and print."""
    add = parser.add_argument
    add("--by", choices=GROUPINGS, default=LINE, help="what is one row (default line)")
    add("--task", metavar="PATTERN", help="only what these tasks left, such as 'feeds.*'")
    add("--include", metavar="P", action="append", default=[], help="only files like */app/*")
    add("--exclude", metavar="P", action="append", default=[], help="no files like */lib/*")
    add("--top", metavar="N", type=_positive, default=20, help="rows at most (default 20)")
    add("--json", action="store_true", help="print JSON, with exact bytes")
    add(
        "--trust-pickle",
        action="store_true",
        help="also read files of tracemalloc.Snapshot.dump(); loading one runs code that it brings",
    )


def choice(options: argparse.Namespace) -> Choice:
    """Which sites the options choose."""
    return Choice(options.task, tuple(options.include), tuple(options.exclude))


def read(path: Path, *, trust_pickle: bool) -> Capture:
    """The capture in a file. Raises `CommandError`."""
    try:
        data = read_bytes(path)
        if data.startswith(PICKLE_MAGIC):
            if not trust_pickle:
                raise CaptureError(REFUSAL)
            return read_snapshot(path, (f"{Path.cwd()}/",), trust=trust_pickle)
        return load_capture(data)
    except CaptureError as error:
        raise CommandError(f"{str(path)!a} {error}") from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "number of rows"  # what argparse calls it in its error
