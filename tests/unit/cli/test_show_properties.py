"""``show`` and ``diff`` of any captures: each is shown, in lines that a terminal takes."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_celery_memory.captures.comparison import GROUPINGS
from otel_celery_memory.captures.model import Capture
from tests.unit.captures.arbitrary import CAPTURES
from tests.unit.cli.running import Command

REFUSED = 2
# Each example writes the files that it shows, and costs more than reading them.
on_the_same_files = settings(
    max_examples=settings().max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def shown(text: str) -> list[str]:
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    return lines


@on_the_same_files
@given(capture=CAPTURES, by=st.sampled_from(GROUPINGS))
def test_any_capture_is_shown_in_printable_lines_and_as_json(
    command: Command, capture: Capture, by: str
) -> None:
    path = command.file("a", capture)
    printed = command("show", path, "--by", by)
    assert (printed.code, printed.err) == (0, "")
    # A file's name and its line are never cut, however narrow the terminal.
    paths = [
        path
        for site in capture.sites
        for path in (site.name, site.path, *(path for path, _ in site.stack))
    ]
    names = [path.rpartition("/")[2] for path in paths]
    longest = max(map(len, names), default=0) + len("    :2147483647")
    assert all(len(line) <= max(100, longest) for line in shown(printed.out))
    printed = command("show", path, "--by", by, "--json")
    assert (printed.code, printed.err, printed.out.isascii()) == (0, "", True)
    assert json.loads(printed.out)["capture"]["worker"] == capture.worker


@on_the_same_files
@given(before=CAPTURES, after=CAPTURES, by=st.sampled_from(GROUPINGS))
def test_any_two_captures_are_compared_or_refused_in_one_line(
    command: Command, before: Capture, after: Capture, by: str
) -> None:
    printed = command("diff", command.file("a", before), command.file("b", after), "--by", by)
    assert printed.code in (0, REFUSED)
    shown(printed.out)
    assert len(shown(printed.err)) == (1 if printed.code == 0 else 2)
    assert before.kind == after.kind or printed.code == REFUSED
