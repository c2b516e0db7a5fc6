"""The console script ``otel-celery-memory``: one file a command, errors printed in one place.

The script calls `main`; the documentation is made from what `parser` knows. The commands are not
imported from outside.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence

from otel_celery_memory.cli import check, diff, report, show, view
from otel_celery_memory.cli.common import CommandError
from otel_celery_memory.conventions import VERSION

__all__ = ["main", "parser"]

COMMANDS = (check, view, report, show, diff)
_CLOSED_PIPE = 128 + signal.SIGPIPE
"""Exit code by which shells report a program that SIGPIPE ended."""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; what it parses has the command's function as ``run``."""
    made = argparse.ArgumentParser(
        prog="otel-celery-memory", description="Memory of Celery workers, as OpenTelemetry."
    )
    made.add_argument("--version", action="version", version=VERSION)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        help_text = (module.__doc__ or "").strip().splitlines()[0]
        command = commands.add_parser(name, help=help_text, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    options = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name with characters that the terminal lacks must not fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does. The interpreter flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    except CommandError as error:
        print(f"otel-celery-memory: {error}", file=sys.stderr)
        return error.exit_code
