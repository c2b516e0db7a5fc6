"""The console script ``otel-celery-memory``: one file a command, errors told in one place."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from otel_celery_memory.cli import check
from otel_celery_memory.cli.errors import CommandError
from otel_celery_memory.version import __version__

COMMANDS = (check,)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="otel-celery-memory", description="Memory of Celery workers, as OpenTelemetry."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        help_text = (module.__doc__ or "").strip().splitlines()[0]
        command = commands.add_parser(name, help=help_text, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(argv)
    try:
        return int(options.run(options))
    except CommandError as error:
        print(f"otel-celery-memory: {error}", file=sys.stderr)
        return error.exit_code
