"""`python -m demo`: arguments in, exit code out.

0 is a run to its end, 1 a worker that failed or telemetry that did not arrive, and 130 is Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys

from demo.interruption import Interrupted, Interruption


def main() -> int:
    """Run the demo as the command line asks."""
    # Before everything slow, above all the imports of Celery.
    interruption = Interruption()
    from demo.local_view import ViewError
    from demo.run import Options, run
    from demo.worker import WorkerError

    parser = argparse.ArgumentParser(prog="python -m demo", description=_DESCRIPTION)
    parser.add_argument(
        "--endpoint",
        default="",
        metavar="URL",
        help="send to this OTLP endpoint, such as http://127.0.0.1:4318, and not to a view that "
        "the demo starts; other OTEL_EXPORTER_OTLP_* variables apply then",
    )
    parser.add_argument(
        "--view",
        action="store_true",
        help="leave the page of the view open at the end, until Ctrl-C",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=25.0,
        metavar="N",
        help="how long tasks are published (default 25); up to four times as long if the leak was "
        "not sampled by then, as on a busy machine",
    )
    arguments = parser.parse_args()
    if arguments.view and arguments.endpoint:
        parser.error("--view is for what the demo receives itself, without --endpoint")
    try:
        run(Options(arguments.seconds, arguments.endpoint, arguments.view), interruption)
    except Interrupted as interrupted:
        print("The demo has ended and left nothing behind.", file=sys.stderr)
        return interrupted.exit_code
    except (WorkerError, ViewError) as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of the output has ended. Python would report that once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


_DESCRIPTION = (
    "A real Celery worker with a leaking, a spiking and a healthy task, and what its memory "
    "instrumentation says of them."
)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 600")
    return value


if __name__ == "__main__":
    sys.exit(main())
