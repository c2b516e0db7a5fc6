"""``python -m peers``: run the suites, compare, and write ``docs/peers.md``."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peers.suites import ENDED_BADLY, ROOT, SUITES, WITHOUT, compared, run, sources
from tests.redis_server import running_redis

PAGE = ROOT / "docs" / "peers.md"
_RESULTS = ROOT / "peers" / "results.json"
_EXPLANATIONS = ROOT / "peers" / "explanations.json"

Results = dict[str, dict[str, Any]]


def main(arguments: Sequence[str]) -> int:
    """1 where something else came of a test with us, and nobody has said why."""
    parser = argparse.ArgumentParser(prog="peers", description=__doc__)
    parser.add_argument("--suite", action="append", help="those whose names have this in them")
    parser.add_argument("--way", action="append", help="only these, and without us")
    options = parser.parse_args(arguments)
    output = Path(sys.prefix)
    for suite in SUITES:
        if options.suite and not any(part in suite.name for part in options.suite):
            continue
        source = sources(suite.distribution, output)
        without: Mapping[str, str] = {}
        for way in suite.ways():
            if options.way and way not in (WITHOUT, *options.way):
                continue
            # A Redis of its own each: what one run leaves there is not the next one's.
            directory = Path(tempfile.mkdtemp(prefix="peers-"))
            with running_redis(directory) as url:
                outcomes = run(suite, way, source, output, url)
            without = without or outcomes
            results = _read()
            results[f"{suite.name} | {way}"] = {
                "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
                "versions": f"{suite.distribution} {version(suite.distribution)}, "
                f"CPython {platform.python_version()}",
                "counts": dict(Counter(outcomes.values())),
                "differences": compared(without, outcomes),
            }
            print(f"{suite.name}, {way}: {results[f'{suite.name} | {way}']}", flush=True)
            _RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    explained: Mapping[str, str] = json.loads(_EXPLANATIONS.read_text())
    results = _read()
    PAGE.write_text(page(results, explained))
    return int("not explained yet" in PAGE.read_text())


def _read() -> Results:
    """What earlier runs found; another one may have written meanwhile."""
    found: Results = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    return found


def page(results: Results, explained: Mapping[str, str]) -> str:
    """The page that says what was run, and what came of it."""
    rows = [
        "| suite | with us | passed | failed | skipped | other outcome than without us | with |"
    ]
    rows.append("|---|---|---|---|---|---|---|")
    notes: Counter[str] = Counter()
    for suite in SUITES:
        for way in suite.ways():
            result = results.get(f"{suite.name} | {way}")
            if result is None:
                rows.append(f"| {suite.name} | {way} | not run | | | | |")
                continue
            of: Counter[str] = Counter(result["counts"])
            of["failed"] += of[ENDED_BADLY]
            counts = " | ".join(str(of[each]) for each in ("passed", "failed", "skipped"))
            differing = "" if way == WITHOUT else str(len(result["differences"]))
            told = f"{result['versions']}, {result['date']}"
            rows.append(f"| {suite.name} | {way} | {counts} | {differing} | {told} |")
            for test, (before, after) in result["differences"].items():
                named, why = _explained(test, after, explained)
                notes[f"`{named}`: {before} without us, {after} with us ({way}): {why}"] += 1
    told = "\n".join(f"- {n} of {text}" for text, n in notes.items()) or "None."
    return _PAGE.format(table="\n".join(rows), differences=told)


def _explained(test: str, outcome: str, explained: Mapping[str, str]) -> tuple[str, str]:
    """The pattern of an explanation's tests, and the explanation.

    A key is such a pattern, and behind a space the outcome that it explains.
    """
    for key, why in explained.items():
        pattern, _, explains = key.partition(" ")
        if fnmatchcase(test, pattern) and explains == outcome:
            return pattern, why
    return test, "not explained yet"


_PAGE = """# The suites of our peers, with us and without us

`make peers` runs Celery's own tests and those of OpenTelemetry's Celery instrumentation, from the
source distributions of these versions, once without us and then with us: instrumented *before* or
*after* the tests are imported. *Extreme* is an export every 0.5 s, sites every second, half of the
tasks' time as the budget and ten frames; *always* traces all with ten frames. *In process*
measures the tasks that the tests run in their own process; elsewhere only a worker is measured. Of
the integration suite, what needs more than a Redis fails in all columns alike. This page is written
by `make peers`, before a release.

{table}

## Differences

{differences}
"""

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
