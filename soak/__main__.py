"""`python -m soak`: a run of any size under faults; 0 where all is accounted for, 1 where not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from soak.plan import Scale
from soak.run import run
from soak.table import lines


def main(arguments: Sequence[str]) -> int:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument(
        "--kill-every",
        type=int,
        default=200,
        help="tasks between two SIGKILLs to children",
    )
    parser.add_argument("--reporter-kills", type=int, default=20)
    parser.add_argument("--troubles", type=int, default=8, help="windows of Collector trouble")
    options = parser.parse_args(arguments)
    scale = Scale(options.tasks, options.kill_every, options.reporter_kills, options.troubles)
    result = run(scale, lambda text: print(text, file=sys.stderr, flush=True))
    print("\n".join(lines(result)))
    return 0 if result.all_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
