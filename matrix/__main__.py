"""``python -m matrix``: try the combinations, some at once, and write what came of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import reduce

from docs import tables
from matrix.combinations import CELERY, OTEL, Combination, combinations
from matrix.interpreters import found
from matrix.results import FAILED, Result, merged, read, table, write
from matrix.trial import environments, occasion, tried


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
    results = list(_tried(chosen, options))
    everything = not (options.python or options.celery or options.otel)
    # Written at the end alone: the tests that are tried compare the table with the results.
    write(reduce(merged, results, [] if everything else read()))
    print(table(read()))
    return tables.main(["--write"]) or int(any(each.outcome == FAILED for each in results))


def _tried(chosen: Sequence[Combination], options: argparse.Namespace) -> Iterator[Result]:
    now, kept = occasion(), environments(os.environ)
    with ThreadPoolExecutor(options.jobs) as pool:
        trials = {pool.submit(tried, each, now, kept, fresh=options.fresh): each for each in chosen}
        for number, trial in enumerate(as_completed(trials), start=1):
            result = trial.result()
            why = f" ({result.why})" if result.why else ""
            print(f"{number}/{len(chosen)} {trials[trial].name}: {result.outcome}{why}", flush=True)
            yield result


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__)
    parser.add_argument("--python", action="append", help="versions that begin so: 3.12")
    parser.add_argument("--celery", action="append", choices=CELERY)
    parser.add_argument("--otel", action="append", choices=OTEL)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="tried at once")
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
