"""``make zoo``: every row in real workers, and what verdicts said of each, right or wrong."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.truth.case import Shape
from tests.truth.conclusions import Seen
from tests.truth.worker_run import run_cases
from tests.zoo.collection import Row, rows
from tests.zoo.confusion import matrix
from tests.zoo.judgement import Judgement, judge, last_ranking, runs_of
from tests.zoo.mixes import MIXES
from tests.zoo.said import said_in
from tests.zoo.table import report, row, table


def main() -> int:
    """Whether a case is wrong, as an exit code of 0 or 1."""
    options = _options()
    chosen = [
        each
        for each in rows()
        if options.case in f"{each.shape.case.name} {each.shape.module} {each.part} {each.cause}"
    ]
    if options.list:
        print(listed(chosen))
        return 0
    missing = [each.shape.case for each in chosen if each.shape.case.missing]
    for case in missing:
        print(f"not run: {case.name}, which needs {', '.join(case.missing)}")
    shapes = _mixed(
        [each.shape for each in chosen if not each.shape.case.missing],
        options.mix.split(","),
        options.longer,
    )
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:

        def judged(shape: Shape, seen: Seen) -> Judgement:
            judgement = judged_of(shape, seen)
            if options.save:
                _save(options.save, judgement, seen)
            print(row(judgement), flush=True)
            return judgement

        results = run_cases(shapes, Path(directory), judged, options.together)
    broken = [result for result in results if isinstance(result, str)]
    judgements = [result for result in results if not isinstance(result, str)]
    print("\n".join(["", table(judgements), *broken, "", matrix(judgements), ""]))
    right = sum(each.right for each in judgements)
    print(
        f"{right} of {len(results)} right; Python {sys.version.split()[0]}, "
        f"{(time.monotonic() - began_s) / 60:.1f} minutes, {options.together} at once"
    )
    return 0 if right == len(results) else 1


def judged_of(shape: Shape, seen: Seen) -> Judgement:
    """The judgement on all that was seen of a case."""
    return judge(
        shape,
        said_in(seen.events),
        seen.began_ns,
        runs_of(seen.points, shape.case.leaks),
        last_ranking(seen.events),
    )


def listed(chosen: Sequence[Row]) -> str:
    """The rows in their parts."""
    lines: list[str] = []
    for each in chosen:
        if each.part not in lines:
            lines.append(each.part)
        case = each.shape.case
        lines.append(f"  {case.name}: {each.cause}; {case.leaks or 'nobody'} leaks")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make zoo")
    parser.add_argument(
        "--case", default="", help="only those whose name, module or cause has this"
    )
    parser.add_argument(
        "--mix", default="alone,mixed", help=f"which of {','.join(MIXES)} (default alone,mixed)"
    )
    parser.add_argument("--longer", type=float, default=1.0, help="times as long, for each case")
    parser.add_argument("--together", type=int, default=4, help="cases at once; each mostly waits")
    parser.add_argument("--save", type=Path, help="a directory for all that was said of each case")
    parser.add_argument("--list", action="store_true", help="rows alone")
    options = parser.parse_args()
    if unknown := set(options.mix.split(",")) - set(MIXES):
        parser.error(f"no such mix: {', '.join(sorted(unknown))}")
    return options


def _mixed(shapes: Sequence[Shape], mixes: Sequence[str], longer: float) -> list[Shape]:
    found = [MIXES[mix](shape) for mix in mixes for shape in shapes]
    return [
        replace(shape, case=replace(shape.case, seconds=shape.case.seconds * longer))
        for shape in found
        if shape is not None
    ]


def _save(directory: Path, judgement: Judgement, seen: Seen) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w]+", "-", judgement.shape.case.name)
    (directory / f"{name}.txt").write_text(report(judgement, seen))


if __name__ == "__main__":
    sys.exit(main())
