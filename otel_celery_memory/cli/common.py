"""Shared by the commands: options, reading captures, text for people, and the one error.

Text from a file is printed without control characters.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from otel_celery_memory.captures.comparison import GROUPINGS, LINE, SiteFilter
from otel_celery_memory.captures.format import (
    PICKLE_MAGIC,
    REFUSAL,
    load_capture,
    read_bytes,
    read_snapshot,
)
from otel_celery_memory.captures.model import KINDS, Capture, CapturedProcess, CaptureError

_USUAL_WIDTH, _LEAST_WIDTH = 100, 40
_INDENT = 15


class CommandError(Exception):
    """An error that the user can fix; the message is one line."""

    exit_code = 2


def size(size_bytes: float | None, *, signed: bool = False) -> str:
    """Bytes for people: ``516.3 KiB``, or ``+516.3 KiB``; ``-`` if unknown."""
    if size_bytes is None:
        return "-"
    sign = "+" if signed and size_bytes > 0 else ""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        # 1,023.95 KiB would be shown as 1024.0 KiB.
        if abs(size_bytes) >= factor * 0.99995:
            return f"{sign}{size_bytes / factor:,.1f} {unit}"
    return f"{sign}{size_bytes:.0f} B"


def count(number: float, *, signed: bool = False) -> str:
    """A number for people: ``18,072``."""
    return f"{number:{'+' if signed and number else ''},.0f}"


def printable(text: str) -> str:
    """A text from a file with ``?`` for control characters, also those of writing direction."""
    return "".join(character if character.isprintable() else "?" for character in text)


def width() -> int:
    """Width of the output in columns: the terminal's, or 100 where there is none."""
    return max(shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns, _LEAST_WIDTH)


def clipped(text: str, width: int) -> str:
    """A text that is too long, cut at its beginning: the end of a path identifies it."""
    return text if len(text) <= width else ".." + text[len(text) - width + 2 :]


def fitted(place: str, width: int) -> str:
    """A place such as ``app/feeds.py:41 in refresh``, shortened if it is too long.

    Directories go first, then the function; the file's name and the line are never cut.
    """
    if len(place) <= width:
        return place
    path, among, function = place.partition(" in ")
    name = path.rpartition("/")[2]
    left = width - len(among) - len(function)
    if left >= len(name) + 3:  # of "../name" the slash shows that the name is whole
        return clipped(path, left) + among + function
    short = f"{name}{among}{function}"
    if len(short) <= width or not function:
        return short
    left = width - len(name) - len(among) - 2
    return f"{name}{among}{function[:left]}.." if left > 0 else name


class Column(NamedTuple):
    """A column of a table: its head, a cell for each row, and whether it has numbers."""

    head: str
    cells: Sequence[str]
    number: bool = True


def table(columns: Sequence[Column], below: Sequence[Sequence[str]] = ()) -> Iterator[str]:
    """Lines of a table; columns of numbers come first, places last.

    ``below`` has places under each row. Texts are made printable. A terminal that is too narrow for
    all columns gets the texts of a row on lines of their own.
    """
    full = width()
    lines = [
        [column.head, *(printable(cell) for cell in column.cells)] for column in _used(columns)
    ]
    widths = [max(map(len, line)) for line in lines]
    numbers = sum(column.number for column in columns)
    gaps = 2 * (len(lines) - 1)
    texts = range(numbers, len(lines))
    for n in texts[:-1]:
        # The last text gets the rest; each other one at most its share.
        widths[n] = max(
            min(widths[n], (full - sum(widths[:numbers]) - gaps) // (len(texts) + 1)), 0
        )
    widths[-1] = full - sum(widths[:-1]) - gaps
    stacked = any(widths[n] < min(len(lines[n][0]), 4) for n in texts) or any(
        len(fitted(cell, widths[-1])) > widths[-1] for cell in lines[-1]
    )
    for row, cells in enumerate(zip(*lines, strict=True)):
        if stacked:
            yield "  ".join(cells[n].rjust(widths[n]) for n in range(numbers))
            yield from (f"  {clipped(cells[n], full - 2)}" for n in texts[:-1])
            yield f"  {fitted(cells[-1], full - 2)}"
        else:
            yield "  ".join(
                (
                    *(cells[n].rjust(widths[n]) for n in range(numbers)),
                    *(clipped(cells[n], widths[n]).ljust(widths[n]) for n in texts[:-1]),
                    fitted(cells[-1], widths[-1]),
                )
            ).rstrip()
        for line in below[row - 1] if row and below else ():
            yield "    " + fitted(printable(line), full - 4)


def _used(columns: Sequence[Column]) -> Iterator[Column]:
    """All columns but empty ones of text."""
    return (
        column for column in columns if column.number or any(column.cells) or column is columns[-1]
    )


def heading(capture: Capture, title: str) -> Iterator[str]:
    """Lines that describe a capture."""
    worker = f" of {capture.worker}" if capture.worker else ""
    yield from _wrapped("", f"{title}{worker}: {capture.kind}, {KINDS[capture.kind]}")
    over = f", over {capture.duration_s:,.1f} s" if capture.duration_s else ""
    reason = f": {capture.reason}" if capture.reason else ""
    yield from _wrapped("taken", f"{_when(capture.taken_ns)}{over}{reason}")
    frames = "1 frame" if capture.frames == 1 else f"{capture.frames} frames"
    yield from _wrapped("tracing", f"{capture.tracing}, {frames}")
    if capture.processes:
        yield from _wrapped("processes", ", ".join(map(_process, capture.processes)))
    if capture.runs:
        runs = (f"{task} {count(number)}" for task, number in sorted(capture.runs.items()))
        yield from _wrapped("traced runs", ", ".join(runs))


def described(capture: Capture) -> dict[str, object]:
    """The description of a capture as JSON."""
    return {
        "kind": capture.kind,
        "worker": capture.worker,
        "reason": capture.reason,
        "taken_ns": capture.taken_ns,
        "duration_s": capture.duration_s,
        "frames": capture.frames,
        "tracing": capture.tracing,
        "processes": [vars(process) for process in capture.processes],
        "runs": dict(capture.runs),
        "other_bytes": capture.other_bytes,
        "other_blocks": capture.other_blocks,
    }


def _process(process: CapturedProcess) -> str:
    rss = "" if process.rss_bytes is None else f", {size(process.rss_bytes)}"
    return f"{process.slot} (pid {process.pid}{rss})"


def _when(taken_ns: int) -> str:
    return f"{datetime.fromtimestamp(taken_ns // 10**9, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _wrapped(name: str, text: str) -> Iterator[str]:
    first = f"  {name}".ljust(_INDENT) if name else ""
    yield from textwrap.wrap(
        printable(text),
        width(),
        initial_indent=first,
        subsequent_indent=" " * _INDENT,
        break_on_hyphens=False,
    )


def filled(first: str, text: str) -> Iterator[str]:
    """Lines of a text after ``first``, to whose right they begin; no word is cut."""
    yield from textwrap.wrap(
        text,
        width(),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
        break_long_words=False,
    ) or [first.rstrip()]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that filter, group and print."""
    add = parser.add_argument
    add("--by", choices=GROUPINGS, default=LINE, help="what is one row (default line)")
    add("--task", metavar="PATTERN", help="only what these tasks left, such as 'feeds.*'")
    add("--include", metavar="P", action="append", default=[], help="only files like */app/*")
    add("--exclude", metavar="P", action="append", default=[], help="no files like */lib/*")
    add("--top", metavar="N", type=_positive, default=20, help="rows at most (default 20)")
    add("--json", action="store_true", help="print JSON, with exact bytes")
    add(
        "--trust-pickle",
        action="store_true",
        help="also read files of tracemalloc.Snapshot.dump(); loading one runs code that it brings",
    )


def site_filter(options: argparse.Namespace) -> SiteFilter:
    """The filter that the options describe."""
    return SiteFilter(options.task, tuple(options.include), tuple(options.exclude))


def read(path: Path, *, trust_pickle: bool) -> Capture:
    """The capture in a file. Raises `CommandError`."""
    try:
        data = read_bytes(path)
        if data.startswith(PICKLE_MAGIC):
            if not trust_pickle:
                raise CaptureError(REFUSAL)
            return read_snapshot(path, (f"{Path.cwd()}/",), trust=trust_pickle)
        return load_capture(data)
    except CaptureError as error:
        raise CommandError(f"{str(path)!a} {error}") from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "number of rows"  # what argparse calls it in its error
