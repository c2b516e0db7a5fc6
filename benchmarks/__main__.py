"""``make bench``: this package beside everything else, in under ten minutes; ``--full`` for all.

Short: contenders on every workload, what is added inside Celery's tracer, the reporter. Full: more
rounds, who detects leaks, growth, and the single questions (children, latency, reading of sites,
descendants, a Collector in trouble). What is being done is said on the error stream. `--json` keeps
all figures, and ``python -m benchmarks.page FILE`` makes the documentation's page of them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import (
    children,
    descendants,
    detection,
    growth,
    latency,
    machine,
    reporter,
    side_by_side,
    sites,
    tracer,
    troubles,
)
from benchmarks.contenders import CONTENDERS
from benchmarks.progress import Progress
from benchmarks.workloads import WORKLOADS

SINGLE = (descendants, children, latency, sites, troubles)
"""Questions of their own, each with a table in words; part of ``--full``."""
ALWAYS = (side_by_side.BARE, side_by_side.BARE_AGAIN)
"""All are compared with the one, and the other says how well that can be done."""
PARTS = ("side_by_side", "tracer", "reporter", "detection", "growth")
IN_SHORT = ("side_by_side", "tracer", "reporter")


def main(arguments: Sequence[str] = ()) -> None:
    """Measures what was asked for, prints tables, keeps figures."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all of it, for hours")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS))
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, help="of each workload")
    parser.add_argument("--scale", type=float, help="of the usual batch")
    parser.add_argument("--together", type=int, default=detection.TOGETHER, help="of detection")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="for detection: begin none later"
    )
    parser.add_argument("--json", type=Path, help="keep all figures; other parts of it stay")
    options = parser.parse_args(arguments)
    parts = options.only or (PARTS if options.full else IN_SHORT)
    effort = side_by_side.FULL if options.full else side_by_side.SHORT
    effort = side_by_side.Effort(
        options.rounds or effort.least_rounds,
        options.rounds or effort.most_rounds,
        effort.seconds,
        options.scale or effort.scale,
        effort.starts,
        effort.short,
    )
    sizes = growth.FULL if options.full else growth.SHORT
    progress = Progress()
    run: Mapping[str, tuple[Callable[[], Any], Callable[[Any], str]]] = {
        "side_by_side": (
            lambda: side_by_side.measured(
                effort,
                progress,
                tuple(dict.fromkeys((*ALWAYS, *(options.contenders or CONTENDERS)))),
                options.workloads or tuple(WORKLOADS),
            ),
            side_by_side.table,
        ),
        "tracer": (lambda: tracer.measured(progress, 7 if options.full else 4), tracer.table),
        "reporter": (lambda: reporter.measured(progress), reporter.table),
        "detection": (
            lambda: detection.measured(
                progress, together=options.together, minutes=options.minutes
            ),
            detection.table,
        ),
        "growth": (
            lambda: growth.measured(
                replace(sizes, rounds=options.rounds or sizes.rounds), progress
            ),
            growth.table,
        ),
    }
    kept: dict[str, Any] = {}
    if options.json and options.json.exists():
        kept = json.loads(options.json.read_text())
    # As an interrupt: what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for part in parts:
        measure, table = run[part]
        before = machine.Marks.now()
        found = measure()
        after = machine.Marks.now()
        kept[part] = {
            **machine.described(),
            "form": "full" if options.full else "short",
            "seconds": round(after.wall_s - before.wall_s),
            "others_share": round(machine.others(before, after), 3),
            "found": found,
        }
        print(table(found))
        print(
            f"{part}: {kept[part]['seconds']} s; other processes used "
            f"{kept[part]['others_share']:.0%} of the machine meanwhile\n",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(kept, indent=1) + "\n")
    if options.full and not options.only:
        for each in SINGLE:
            each.main()
            print(flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
