"""``make truth``: every case in a real worker, and a table of what a person would conclude."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.truth.case import Shape, shapes
from tests.truth.conclusions import Conclusion, Seen, conclude
from tests.truth.shared_cases import shared_shapes
from tests.truth.worker_run import run_cases


def main() -> int:
    """The number of cases that a person would be wrong about, as an exit code of 0 or 1."""
    parser = argparse.ArgumentParser(prog="make truth")
    parser.add_argument(
        "--case",
        action="append",
        help="only those whose name or module has this; may be given several times",
    )
    parser.add_argument("--together", type=int, default=5, help="cases at once; each mostly waits")
    parser.add_argument("--save", type=Path, help="a directory for what each worker answered")
    parser.add_argument(
        "--shared",
        type=Path,
        default=Path("../shared/cases"),
        help="a directory with applications of their own, run too where it is there",
    )
    parser.add_argument("--list", action="store_true", help="names alone")
    options = parser.parse_args()
    every = shapes() + (shared_shapes(options.shared) if options.shared.is_dir() else ())
    chosen = [s for s in every if is_wanted(s, options.case or [""])]
    missing = [s for s in chosen if s.case.missing]
    chosen = [s for s in chosen if not s.case.missing]
    if options.list:
        print("\n".join(shape.case.name for shape in chosen))
        return 0
    for shape in missing:
        print(f"not run: {shape.case.name}, which needs {', '.join(shape.case.missing)}")
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:

        def concluded_of(shape: Shape, seen: Seen) -> Conclusion:
            concluded = conclude(shape, seen)
            if options.save:
                options.save.mkdir(parents=True, exist_ok=True)
                name = shape.case.name.replace(" ", "-")
                (options.save / f"{name}.txt").write_text(report(concluded, seen))
            print(row(concluded, seen), flush=True)
            return concluded

        results = run_cases(chosen, Path(directory), concluded_of, options.together)
    broken = [result for result in results if isinstance(result, str)]
    concluded = [result for result in results if not isinstance(result, str)]
    right = sum(each.right for each in concluded)
    print("\n".join(["", table(concluded), *_before(concluded), *broken, ""]))
    print(
        f"{right} of {len(results)} right, {sum(bool(each.accused) for each in concluded)} accuse "
        f"somebody innocent; Python {sys.version.split()[0]}, "
        f"{(time.monotonic() - began_s) / 60:.1f} minutes, {options.together} at once"
    )
    return 0 if right == len(results) else 1


def is_wanted(shape: Shape, words: Sequence[str]) -> bool:
    """Whether one of the words is in its name or the name of its module."""
    return any(word in f"{shape.case.name} {shape.module}" for word in words)


def answer(shape: Shape) -> str:
    """The right answer, for people."""
    return " ".join([shape.case.leaks or "nobody", " or ".join(shape.lines)]).strip()


def row(concluded: Conclusion, seen: Seen) -> str:
    """One case as soon as it is over."""
    return (
        f"{'right' if concluded.right else 'WRONG'}  {concluded.shape.case.name}: "
        f"{sum(seen.runs.values()):,} runs in {seen.seconds:.0f} s, "
        f"processes grew {seen.grown_bytes_per_minute / 1024:,.0f} KiB a minute"
    )


def table(concluded: Sequence[Conclusion]) -> str:
    """All cases in columns."""
    heads = (
        *("case", "right answer", "inspect", "telemetry", "", "factor", "accused", "spent"),
        "not shown",
    )
    rows = [heads]
    for each in concluded:
        accused = sorted({f"{claim.task} {claim.line}".strip() for claim in each.accused})
        rows.append(
            (
                each.shape.case.name,
                answer(each.shape),
                _marked(each.inspect.text, each.inspect.is_right(each.shape)),
                _marked(each.telemetry.text, each.telemetry.is_right(each.shape)),
                "right" if each.right else "WRONG",
                "-" if each.factor is None else f"{each.factor:,.0f}",
                ", ".join(accused[:2]) + (f" and {len(accused) - 2} more" if accused[2:] else ""),
                "-" if each.spent is None else f"{each.spent:.2%}",
                "; ".join(text[:60] for text in each.missing),
            )
        )
    return _columns(rows)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in rows
    )


def _before(concluded: Sequence[Conclusion]) -> list[str]:
    """What a first version said of the shared cases, beside what is said now."""
    rows = [
        (each.shape.case.name, "right" if each.right else "WRONG", each.shape.program.before)
        for each in concluded
        if each.shape.program.before
    ]
    return ["", _columns([("case", "now", "the first version"), *rows])] if rows else []


def report(concluded: Conclusion, seen: Seen) -> str:
    """What led to the conclusion: the answer of `inspect memory`, and who was accused."""
    accused = "\n".join(f"  {claim.text}" for claim in concluded.accused) or "  nobody"
    missing = "\n".join(f"  {text}" for text in concluded.missing) or "  nothing"
    sizes = " ".join(f"{size >> 20}" for _, size in seen.rss)
    return (
        f"{row(concluded, seen)}\n{table([concluded])}\n\naccused:\n{accused}\n\n"
        f"not shown:\n{missing}\n\n"
        f"RSS of all, in MiB: {sizes}\n\n{seen.inspected}\n"
    )


def _marked(text: str, right: bool) -> str:
    return text if right else f"! {text}"


if __name__ == "__main__":
    sys.exit(main())
