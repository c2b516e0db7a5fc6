"""Show what changed between two captures: which lines hold more memory than before.

BEFORE and AFTER are captures of the same kind, or with --trust-pickle files of
tracemalloc.Snapshot.dump(). If sizes are sums over runs, the means of a run are compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from otel_celery_memory.captures.comparison import Change, Group, caveats, compare
from otel_celery_memory.captures.model import ADDED_UP, Capture, CaptureError
from otel_celery_memory.cli import common
from otel_celery_memory.cli.common import (
    Column,
    CommandError,
    count,
    described,
    heading,
    printable,
    size,
    table,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("before", metavar="BEFORE", type=Path)
    parser.add_argument("after", metavar="AFTER", type=Path)
    common.add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the difference."""
    site_filter = common.site_filter(options)
    before, after = (
        site_filter.apply(common.read(path, trust_pickle=options.trust_pickle))
        for path in (options.before, options.after)
    )
    try:
        changes = compare(before, after, options.by)
    except CaptureError as error:
        raise CommandError(str(error)) from None
    if options.json:
        print(json.dumps(_as_json(before, after, changes, options.by, options.top), indent=2))
    else:
        print("\n".join(_as_text(before, after, changes, options.top)))
    return 0


def _as_text(before: Capture, after: Capture, changes: Sequence[Change], top: int) -> Iterator[str]:
    yield from heading(before, "BEFORE")
    yield from heading(after, "AFTER")
    for line in caveats(before, after):
        yield f"note: {printable(line)}"
    yield ""
    shown = changes[:top]
    texts = [
        Column("task", [each.after.task for each in shown], number=False),
        Column("place", [each.place for each in shown], number=False),
    ]
    numbers = _means(shown) if after.kind in ADDED_UP else _totals(shown)
    yield from table([*numbers, *texts], [each.after.stack for each in shown])
    yield ""
    yield _summary(after, changes, len(shown))


def _totals(shown: Sequence[Change]) -> list[Column]:
    return [
        Column("change", [size(each.size_bytes, signed=True) for each in shown]),
        Column("blocks", [count(each.blocks, signed=True) for each in shown]),
        Column("before", [size(each.before.size_bytes) for each in shown]),
        Column("after", [size(each.after.size_bytes) for each in shown]),
    ]


def _means(shown: Sequence[Change]) -> list[Column]:
    return [
        Column("change a run", [size(each.run_bytes, signed=True) for each in shown]),
        Column("before", [size(each.before.run_bytes) for each in shown]),
        Column("after", [size(each.after.run_bytes) for each in shown]),
    ]


def _summary(after: Capture, changes: Sequence[Change], shown: int) -> str:
    places = f"{count(len(changes))} places"
    if shown < len(changes):
        places += f", {shown} shown"
    if after.kind in ADDED_UP:
        # A sum of means over several tasks has no meaning.
        return places
    size_bytes = sum(change.size_bytes for change in changes)
    blocks = sum(change.blocks for change in changes)
    return f"{size(size_bytes, signed=True)} in {count(blocks, signed=True)} blocks at {places}"


def _as_json(
    before: Capture, after: Capture, changes: Sequence[Change], by: str, top: int
) -> dict[str, object]:
    means = after.kind in ADDED_UP
    return {
        "before": described(before),
        "after": described(after),
        "notes": list(caveats(before, after)),
        "by": by,
        "groups": len(changes),
        "top": [
            {
                "task": change.after.task,
                "name": change.after.name,
                "function": change.after.function or change.before.function,
                "stack": change.after.stack,
                "before": _side(change.before),
                "after": _side(change.after),
                "change": {"run_bytes": change.run_bytes}
                if means
                else {"size_bytes": change.size_bytes, "blocks": change.blocks},
            }
            for change in changes[:top]
        ],
    }


def _side(group: Group) -> dict[str, object]:
    return {
        "size_bytes": group.size_bytes,
        "blocks": group.blocks,
        "runs": group.runs,
        "run_bytes": group.run_bytes,
    }
