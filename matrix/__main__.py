"""``python -m matrix``: try the combinations one after another, and write what came of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from docs import tables
from matrix.combinations import CELERY, OTEL, combinations
from matrix.interpreters import found
from matrix.results import Result, merged, read, table, write
from matrix.trial import environments, tried


def main(arguments: Sequence[str]) -> int:
    """1 where tests failed; what cannot be installed together is told and is no failure."""
    options = _parse(arguments)
    interpreters = [
        each
        for each in found(os.environ)
        if not options.python or each.name.startswith(tuple(options.python))
    ]
    if not interpreters:
        print("no such CPython on this machine")
        return 1
    chosen = list(combinations(interpreters, options.celery or CELERY, options.otel or OTEL))
    everything = not (options.python or options.celery or options.otel)
    results: list[Result] = []
    bad = 0
    for number, combination in enumerate(chosen, start=1):
        print(f"{number}/{len(chosen)} {combination.name}", end=": ", flush=True)
        result = tried(combination, environments(os.environ), fresh=options.fresh)
        bad += "failed" in result.outcome
        print(result.outcome + (f" ({result.why})" if result.why else ""), flush=True)
        # After each: what was run stands there, whatever becomes of the rest.
        results = merged(results if everything else read(), result)
        write(results)
    print(table(results))
    return tables.main(["--write"]) or int(bad > 0)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__)
    parser.add_argument("--python", action="append", help="versions that begin so: 3.12")
    parser.add_argument("--celery", action="append", choices=CELERY)
    parser.add_argument("--otel", action="append", choices=OTEL)
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
